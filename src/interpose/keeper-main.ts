import './signals.ts';
import { keep } from './keeper.ts';
import { logTo } from './log.ts';
import { parsePlan } from './plan.ts';
import { logOf } from './target-stderr.ts';

const plan = parsePlan(process.argv[2]);
logTo(logOf(plan));
await keep(plan);
