import { closeSync, openSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_GROUP_GET_DEVICE_FD,
} from '../../../src/abi/vfio-ioctl.ts';
import { vfio_device_info, vfio_region_info } from '../../../src/abi/vfio-device.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  vfio_device_feature,
  vfio_device_feature_mig_state,
} from '../../../src/abi/vfio-v2.ts';
import { Bridging } from '../../../src/interpose/bridged/bridging.ts';
import { Findings } from '../../../src/interpose/bridged/findings.ts';
import { JournalLayout } from '../../../src/interpose/memory/journal.ts';
import { Ledgers } from '../../../src/interpose/memory/ledger.ts';
import { BRIDGED, type Plan } from '../../../src/interpose/run/plan.ts';
import type { Reach } from '../../../src/interpose/bridged/reach.ts';
import { OwnedFd } from '../../../src/sys/fd.ts';
import { trySyscall } from '../../../src/sys/libc.ts';
import { V2 } from '../../../src/v2/states.ts';
import { bridgingOptions } from '../../support/bridging-options.ts';
import { BytePort, failed, typeCap, u64 } from '../../support/byte-port.ts';
import { GuardedMemory, selfIoctl } from '../../support/self-call.ts';
import { turnOf } from '../../support/self-turn.ts';

let fake = new BytePort();
let file = -1;

/** Every descriptor is a device of the kernel, and its driver is the fake. */
const reach: Reach = {
  duplicate: () => new OwnedFd(trySyscall('dup', file)),
  isGroupDevice: () => true,
  group: () => undefined,
  hasContainer: () => false,
  container: () => {
    throw new Error('no container is looked at');
  },
  threaded: (port) => port,
  port: () => fake,
  map: (_place, _part, size) => ({ bytes: new Uint8Array(size), address: 0 }),
  fdStore: () => ({ put: () => {}, peek: () => undefined, clear: () => {} }),
};

const memory = new GuardedMemory();

/** Bridges devices whose driver is a fake, for a VMM that is this process. */
class Run {
  readonly said: string[] = [];
  readonly #journal: Uint8Array;
  #ledgers!: Ledgers;
  #bridging!: Bridging;
  #findings!: Findings;

  constructor(present: Plan['present'], roundTrip = false) {
    const layout = new JournalLayout(BRIDGED);
    this.#journal = new Uint8Array(layout.size);
    this.begin(present, roundTrip);
  }

  /** A supervisor begins, the first or a successor. */
  begin(present: Plan['present'], roundTrip = false): void {
    const layout = new JournalLayout(BRIDGED);
    this.#ledgers = new Ledgers(layout.ledgers(this.#journal));
    const say = (message: string): void => {
      if (!message.includes('the device is in')) this.said.push(message);
    };
    this.#findings = new Findings(layout.findings(this.#journal), say);
    const options = bridgingOptions({ present, roundTrip, warn: say, log: say, findings: this.#findings, reach });
    const places = Array.from({ length: BRIDGED }, (_, n) => layout.deviceLedger(this.#journal, this.#ledgers, n));
    this.#bridging = new Bridging(places, options);
  }

  ioctl(command: number, argument: Uint8Array): void {
    this.#bridging.ioctl(turnOf(selfIoctl(command, memory.put(argument)), this.#ledgers), command);
  }

  /** As a VMM opens a device: its group is asked for it, and it is asked what it is. */
  open(name: string): void {
    this.ioctl(VFIO_GROUP_GET_DEVICE_FD, Buffer.from(`${name}\0`));
    this.ioctl(VFIO_DEVICE_GET_INFO, vfio_device_info.encode({ argsz: vfio_device_info.size }));
  }

  askForRegion(index: number): void {
    this.ioctl(VFIO_DEVICE_GET_REGION_INFO, vfio_region_info.encode({ argsz: vfio_region_info.size, index }));
  }

  askForFeature(feature: number): void {
    const bytes = new Uint8Array(64);
    vfio_device_feature.encode({ argsz: bytes.length, flags: VFIO_DEVICE_FEATURE_GET | feature }, bytes);
    this.ioctl(VFIO_DEVICE_FEATURE, bytes);
  }

  end(): string[] {
    const { conclusion } = this.#findings;
    return conclusion === undefined ? [] : [conclusion];
  }
}

function speaksV2(): void {
  fake.features.set(VFIO_DEVICE_FEATURE_MIGRATION, u64(3n));
  fake.features.set(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, {
    get(data) {
      data.set(vfio_device_feature_mig_state.encode({ device_state: V2.RUNNING, data_fd: -1 }));
    },
  });
  fake.regions.set(8, { size: 0n });
}

/** Index 9: a migration region, whose device runs. */
function speaksV1(): void {
  fake.answer = (request, argument) => {
    if (request !== 'pread64') return false;
    argument[0] = 1;
    return true;
  };
  fake.regions.set(9, { size: 131_072n, offset: 9n << 40n, caps: typeCap(3, 1) });
}

/** The same, of a draft. */
function speaksDraft(): void {
  fake.regions.set(9, { size: 2n ** 24n, offset: 9n << 40n, caps: typeCap(2 ** 30, 1) });
}

const NEITHER =
  'the driver does not support migration: it has neither VFIO_DEVICE_FEATURE_MIGRATION nor a migration region';

beforeEach(() => {
  fake = new BytePort();
  fake.regions.set(7, { size: 256n });
  file = openSync('/dev/null', 'r');
});
afterEach(() => closeSync(file));

const NAME = '0000:01:00.0';

describe('run -v', () => {
  it('says that no device was opened', () => {
    expect(new Run('auto').end()).toEqual(['no device was bridged: none was opened']);
  });

  it.each([
    ['speaks what is presented: v2', 'v2', speaksV2, 'speaks v2 already, left alone'],
    ['speaks what is presented: v1', 'v1', speaksV1, 'speaks v1 already, left alone'],
    ['cannot be migrated', 'auto', () => {}, `${NEITHER}, left alone`],
    [
      'has the region of a draft',
      'draft-2019',
      speaksDraft,
      'the driver is not served: it has the migration region of a draft before v1, and which one of November 2018 and February 2019 cannot be told, left alone',
    ],
  ] as const)('says, at once and at the end, of a device that %s', (_, present, prepare, why) => {
    prepare();
    const run = new Run(present);
    run.open(NAME);
    expect(run.said).toEqual([`${NAME}: ${why}`]);
    run.askForFeature(VFIO_DEVICE_FEATURE_MIGRATION); // whoever asks for it again, and has no name for it
    run.open(NAME);
    expect(run.said).toEqual([`${NAME}: ${why}`]);
    expect(run.end()).toEqual([`no device was bridged: ${NAME}: ${why}`]);
  });

  it('says why each of several was left alone, also by a successor of the supervisor', () => {
    const run = new Run('auto');
    run.open('0000:01:00.0');
    run.begin('auto');
    fake.answer = (request) => {
      if (request === 'VFIO_DEVICE_FEATURE') throw failed('EIO');
      return false;
    };
    run.open('0000:02:00.0');
    expect(run.end()).toEqual([
      `no device was bridged: 0000:01:00.0: ${NEITHER}, left alone; ` +
        '0000:02:00.0: is not bridged: VFIO: ioctl failed with EIO',
    ]);
  });

  it('says what a device is offered in, and then which protocol the VMM uses', () => {
    speaksV2();
    const run = new Run('auto');
    run.open(NAME);
    expect(run.said).toEqual([`${NAME}: speaks v2, and is offered in v1 as well`]);
    run.askForRegion(7);
    expect(run.said).toHaveLength(1);
    run.askForFeature(VFIO_DEVICE_FEATURE_MIGRATION);
    run.askForFeature(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE);
    expect(run.said.slice(1)).toEqual([`${NAME}: the VMM uses v2`]);
    expect(run.end()).toEqual([]);
    run.begin('auto');
    expect(run.end(), 'a successor').toEqual([]);
  });

  it.each([
    ['v2', speaksV2, 9],
    ['v1', speaksV1, 10],
  ] as const)(
    'says that a %s device is offered as a draft, and that the VMM uses its region',
    (protocol, prepare, added) => {
      prepare();
      const run = new Run('draft-2018');
      run.open(NAME);
      run.askForRegion(7);
      run.askForRegion(added);
      expect(run.said).toEqual([
        `${NAME}: speaks ${protocol}, and is offered in draft-2018 as well`,
        `${NAME}: the VMM uses draft-2018`,
      ]);
    },
  );

  it('says that the VMM uses the region that the driver has itself', () => {
    speaksV1();
    const run = new Run('draft-2019');
    run.open(NAME);
    run.askForRegion(9);
    expect(run.said.slice(1)).toEqual([`${NAME}: the VMM uses v1`]);
  });

  it('says that a device is taken to the other protocol and back', () => {
    speaksV2();
    const run = new Run('v2', true);
    run.open(NAME);
    expect(run.said).toEqual([`${NAME}: speaks v2, and is taken to v1 and back`]);
  });

  it('says it of a VMM that looks for the region', () => {
    speaksV2();
    const run = new Run('v1');
    run.open(NAME);
    run.askForRegion(9);
    run.askForRegion(9);
    expect(run.said.slice(1)).toEqual([`${NAME}: the VMM uses v1`]);
  });

  it('has no room for more than fits, and still says it at once', () => {
    const run = new Run('auto');
    for (let n = 0; n < 100; n += 1) run.open(`device-${n}`);
    expect(run.said).toHaveLength(100);
    const [conclusion = ''] = run.end();
    expect(conclusion).toMatch(/^no device was bridged: device-0: .*, left alone; and more$/);
  });
});
