import { presentV1, presentV2, type PresentV1Options, type PresentV2Options } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import type { V2State } from '../../src/v2/states.ts';
import { SpyV1 } from './spy-v1.ts';
import { SpyV2 } from './spy-v2.ts';
import { TapeV1 } from './tape-v1.ts';
import { TapeV2, type TapeV2Options } from './tape-v2.ts';
import { v1User } from './v1-user.ts';

export interface OldVmm {
  readonly tape: TapeV2;
  readonly spy: SpyV2;
  readonly device: V1Device;
  readonly user: ReturnType<typeof v1User>;
  readonly warnings: string[];
}

/** An old VMM in front of a tape: user, bridge, spy, tape. The data section has two halves of 8192 bytes unless told otherwise: buffers of a data section that is given are as long as they are by default. */
export function oldVmm(tapeOptions: TapeV2Options = {}, options: PresentV1Options = {}): OldVmm {
  const tape = new TapeV2(tapeOptions);
  const spy = new SpyV2(tape);
  const warnings: string[] = [];
  const device = presentV1(spy, {
    ...(options.dataSection === undefined && { dataSection: new Uint8Array(16_384), bufferSize: 8192 }),
    warn: (message) => warnings.push(message),
    ...options,
  });
  return { tape, spy, device, user: v1User(device), warnings };
}

export interface NewVmm {
  readonly tape: TapeV1;
  readonly spy: SpyV1;
  readonly device: V2Device;
  readonly warnings: string[];
  /** setState(), which must begin a session. */
  begin(state: V2State): V2DataSession;
}

/** A new VMM in front of a v1 tape. */
export function newVmm(tape: TapeV1 = new TapeV1(), options: PresentV2Options = {}): NewVmm {
  const spy = new SpyV1(tape.device);
  const warnings: string[] = [];
  const device = presentV2(spy, { warn: (message) => warnings.push(message), ...options });
  return {
    tape,
    spy,
    device,
    warnings,
    begin(state) {
      const session = device.setState(state);
      if (session === undefined) throw new Error('no data session began');
      return session;
    },
  };
}

/** One read of at most `length` bytes. */
export function readSome(session: V2DataSession | undefined, length: number): Uint8Array {
  if (session === undefined) throw new Error('no data session');
  const into = new Uint8Array(length);
  return into.subarray(0, session.read(into));
}

/** Reads to the end of the stream. */
export function readToEnd(session: V2DataSession | undefined, block = 4096): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let piece = readSome(session, block); piece.length > 0; piece = readSome(session, block)) pieces.push(piece);
  return pieces;
}
