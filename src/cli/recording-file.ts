import { piecesOf } from '../recorded/file.ts';
import { readRecording, type RecordingEntry } from '../recording/reader.ts';
import { inFile } from '../state-file/errors.ts';

/** The lines of a recording, each checked; the file is opened when the first is asked for. `-` is stdin. */
export function* recordingIn(file: string): Generator<RecordingEntry, void, undefined> {
  try {
    yield* readRecording(recordingBytes(file));
  } catch (error) {
    throw inFile(file, error);
  }
}

/** The same as bytes. */
export function recordingBytes(file: string): Generator<Uint8Array> {
  return piecesOf(file, file === '-' ? 0 : undefined);
}
