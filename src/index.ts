/** The library: both protocols and the drafts before them, the bridge between them, observe(), simulated devices, conformance, QEMU's stream format, recordings and their pictures, state files, errors. No I/O. */
export * from './error.ts';
export { sleepUntilReady, whenReady, type WaitForDevice } from './wait.ts';
export * from './v1/index.ts';
export * from './v1/drafts/index.ts';
export * from './v2/index.ts';
export * from './qemu-stream/index.ts';
export * from './bridge/index.ts';
export * from './sim/index.ts';
export * from './device/index.ts';
export * from './recording/index.ts';
export * from './check/index.ts';
export * from './timeline/index.ts';
export * from './state-file/index.ts';
