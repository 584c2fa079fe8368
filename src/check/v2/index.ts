import type { Rule } from '../rule.ts';
import { dataRules } from './data.ts';
import { dmaLogRules } from './dma-log.ts';
import { preCopyRules } from './pre-copy.ts';
import { refusalRules } from './refusals.ts';
import { sessionRules } from './sessions.ts';
import { stateRules } from './states.ts';
import type { V2Subject } from './subject.ts';

/** What a driver of the second protocol must do. Bad states come last: not every driver survives them. */
export const v2Rules: readonly Rule<V2Subject>[] = [
  ...stateRules,
  ...sessionRules,
  ...dataRules,
  ...preCopyRules,
  ...dmaLogRules,
  ...refusalRules,
];
