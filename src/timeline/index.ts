export { htmlOf } from './html.ts';
export { PHASES, phaseOf, type Phase, type PhaseLook } from './phases.ts';
export { dotOf, machineV1, machineV2, mermaidOf, type Arc, type StateMachine } from './state-machine.ts';
export { svgOf } from './svg.ts';
export { textOf, type TextOptions } from './text.ts';
export { readTimeline, type PlacedRecording, type Range, type Timeline } from './timeline.ts';
export { traceEventsOf } from './trace-events.ts';
