import { carryOut } from './program.ts';

void carryOut(new Map([['run', () => import('./run.ts')]]));
