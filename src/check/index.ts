export {
  checkDevice,
  checkSteps,
  rulesFor,
  type CheckedDevice,
  type CheckOptions,
  type Conclusion,
  type Result,
  type Verdict,
} from './check.ts';
export { deviationLists, deviationsNamed, deviationsOf, parseDeviations } from './deviations.ts';
export type { Deviation, DeviationList } from './deviations.ts';
export { junit } from './junit.ts';
export type { RuleText } from './rule.ts';
export { inWords, Tap } from './tap.ts';
export { findingText, judgeRecording, VmmJudge, vmmRules, type Finding, type Judgement } from './vmm/judge.ts';
export type { DirtyBitmap, DmaLog, IovaRange } from '../vfio/dma-log.ts';
