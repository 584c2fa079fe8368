import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Devices } from '../../../src/interpose/serve/devices.ts';
import { Emulation } from '../../../src/interpose/emulated/emulation.ts';
import { deviceFiles, filesOf } from '../../../src/interpose/memory/inherited.ts';
import { JournalLayout } from '../../../src/interpose/memory/journal.ts';
import { Ledgers } from '../../../src/interpose/memory/ledger.ts';
import { planDevice } from '../../../src/interpose/run/plan-device.ts';
import type { Plan } from '../../../src/interpose/run/plan.ts';
import { Router } from '../../../src/interpose/serve/router.ts';
import { serve } from '../../../src/interpose/serve/serve.ts';
import type { ServedDevice } from '../../../src/interpose/serve/served-device.ts';
import { Turn } from '../../../src/interpose/memory/turn.ts';
import { regionOffset } from '../../../src/interpose/run/window.ts';
import { parseSpec } from '../../../src/sim/spec.ts';
import type { OwnedFd } from '../../../src/sys/fd.ts';
import { addressOf, arch } from '../../../src/sys/libc.ts';
import { createSharedMemory } from '../../../src/sys/memory.ts';
import type { V1Device } from '../../../src/v1/device.ts';
import { V1RegisterAccess } from '../../../src/v1/registers.ts';
import { crashes } from '../../support/crashes.ts';
import { failure } from '../../support/errno.ts';
import { selfCall } from '../../support/self-call.ts';
import { NoAnswers } from '../../support/self-turn.ts';

const SPEC = 'qat,size=4K';
const { pwrite64 } = arch.syscalls;

const [RUNNING, SAVING, STOP_COPY, STOP] = [1, 3, 2, 0];

class Answered extends NoAnswers {
  last: [value: number, error: number] | undefined;
  override respond(_: Uint32Array, value: number, error: number): void {
    this.last = [value, error];
  }
}

describe('a call that changes two devices', () => {
  const layout = new JournalLayout(2);
  let files: OwnedFd[];
  let journal: Uint8Array;
  let refuses: boolean;
  let calls: bigint;

  beforeEach(() => {
    files = [];
    journal = new Uint8Array(layout.size);
    refuses = false;
    calls = 0n;
  });
  afterEach(() => {
    for (const file of files) file.close();
  });

  /** A supervisor that serves two devices which are stopped and started as one: what is written to the first goes to both. */
  function supervisor(memory: Uint8Array): {
    ledgers: Ledgers;
    served: (call: ReturnType<typeof write>) => void;
    states: () => number[];
    answers: Answered;
  } {
    const devices = [0, 1].map((n) => planDevice(n, SPEC, parseSpec(SPEC), 8192));
    const perDevice = filesOf(devices[0] as (typeof devices)[0]).length;
    if (files.length === 0)
      files = devices.flatMap((device) => filesOf(device).map(({ name, size }) => createSharedMemory(name, size)));
    const numbers = files.map(({ number }) => number);
    const plan = { devices, present: 'v1', roundTrip: false, segmentation: 'raw', onError: 'reset' } as unknown as Plan;
    const ledgers = new Ledgers(layout.ledgers(memory));
    const emulation = new Emulation(
      plan,
      { layout, journal: memory, ledgers, filesOf: (n) => deviceFiles(numbers.slice(n * perDevice)) },
      { ...plan, warn: () => {}, log: undefined },
    );
    const [first, second] = [emulation.at(0), emulation.at(1)] as [ServedDevice, ServedDevice];
    const registers = [first, second].map(({ region }) => new V1RegisterAccess(region as V1Device));
    const writeFirst = first.write.bind(first);
    first.write = (turn: Turn, offset: number): number => {
      const length = writeFirst(turn, offset);
      turn.touch(second.ledger);
      if (refuses) throw failure('EIO', 'ERR_DEVICE');
      registers[1]?.setDeviceState(registers[0]?.deviceState() ?? 0);
      return length;
    };
    const both: Devices = {
      at: (place) => (place === 0 ? first : undefined),
      whose: () => undefined,
      reports: () => [],
      rehearsalDrivers: () => [],
      ioctl: () => 0,
      open: () => 0,
      work: () => Infinity,
    };
    const answers = new Answered();
    const router = new Router(both, undefined);
    return {
      ledgers,
      answers,
      served: (call) => {
        expect(serve(call, new Turn(answers, ledgers, call), router)).toBeUndefined();
      },
      states: () => registers.map((register) => register.deviceState()),
    };
  }

  const value = new Uint8Array(4);
  function write(state: number): ReturnType<typeof selfCall> {
    value[0] = state;
    calls += 1n;
    const fd = files[0]?.number ?? -1; // the device's own file comes first
    return selfCall(pwrite64, [fd, addressOf(value), value.length, regionOffset(0)], calls);
  }

  it('is found by a successor in both of them or in none, wherever the supervisor is killed, and is repeated to the same end', () => {
    let before = supervisor(journal).states();
    expect(before).toEqual([RUNNING, RUNNING]);
    for (const state of [SAVING, STOP_COPY, STOP, RUNNING, STOP_COPY, RUNNING]) {
      const now = supervisor(journal);
      const call = write(state);
      const images = crashes(journal, () => now.served(call));
      expect(now.answers.last).toEqual([4, 0]);
      const after = now.states();
      expect(after).toEqual([state, state]);
      const outcomes = new Set<boolean>();
      for (const image of images) {
        const successor = supervisor(image);
        const isDone = successor.ledgers.isOf(call.words);
        outcomes.add(isDone);
        expect(successor.states()).toEqual(isDone ? after : before);
        if (!isDone) successor.served(call);
        expect(successor.states()).toEqual(after);
        expect(successor.ledgers.answer).toMatchObject({ value: 4, error: 0 });
      }
      expect(outcomes).toEqual(new Set([true, false]));
      expect(images.length).toBeGreaterThan(5);
      before = after;
    }
  });

  it('fails as one answer, with what it has changed until then', () => {
    const now = supervisor(journal);
    refuses = true;
    const call = write(STOP_COPY);
    const images = crashes(journal, () => now.served(call));
    expect(now.answers.last?.[1]).toBeLessThan(0);
    for (const image of images) {
      const successor = supervisor(image);
      const isDone = successor.ledgers.isOf(call.words);
      expect(successor.states()).toEqual(isDone ? [STOP_COPY, RUNNING] : [RUNNING, RUNNING]);
      if (isDone) expect(successor.ledgers.answer.error).toBe(now.answers.last?.[1]);
    }
    expect(supervisor(journal).ledgers.isOf(call.words)).toBe(true);
  });
});
