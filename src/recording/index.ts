export * from './format.ts';
export { deviceCall, lineOf } from './line.ts';
export { readRecording, type CutLine, type RecordingEntry } from './reader.ts';
export { inSummary, type LoopSummary } from './summary.ts';
export { TraceText } from './text.ts';
