import type { Rule } from '../rule.ts';
import { dataRules } from './data.ts';
import { registerRules } from './registers.ts';
import { stateRules } from './states.ts';
import type { V1Subject } from './subject.ts';

/** What a driver of the first protocol must do. Bad states come last. */
export const v1Rules: readonly Rule<V1Subject>[] = [...stateRules, ...registerRules, ...dataRules];
