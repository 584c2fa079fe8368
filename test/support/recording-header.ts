import { RECORDING_FORMAT, RECORDING_VERSION, type RecordingHeader } from '../../src/recording/format.ts';

/** The first line of a recording that a test makes: of a `run` that presents v1 of a simulated qat, but for what `fields` say. */
export function recordingHeader(fields: Partial<RecordingHeader> = {}): RecordingHeader {
  return {
    kind: 'recording',
    format: RECORDING_FORMAT,
    version: RECORDING_VERSION,
    program: '0.1.0',
    command: 'run',
    realtime: 1_795_741_262_345_678,
    monotonic: 1_000_000,
    host: 'old',
    present: 'v1',
    devices: [{ name: '0000:90:00.0', device: 'qat,size=16M', protocol: 'v2' }],
    options: { 'round-trip': false, 'data-size': 16_777_216, segmentation: 'raw' },
    ...fields,
  };
}
