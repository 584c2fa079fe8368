import { keep } from './keeper.ts';
import { parsePlan } from './plan.ts';

keep(parsePlan(process.argv[2]));
