import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
} from '../../../src/abi/vfio-v2.ts';
import { V2 } from '../../../src/v2/states.ts';
import { deviceFeature, isMigrationFeature, type OpenDataFd } from '../../../src/vfio/server/feature-request.ts';
import { failure, notYet, outcome } from '../../support/errno.ts';
import { v2Sim } from '../../support/sims.ts';
import { SpyV2 } from '../../support/spy-v2.ts';
import { BAD_ADDRESS, UserMemory } from '../../support/user-memory.ts';

const HEADER = vfio_device_feature.size;
const GET = VFIO_DEVICE_FEATURE_GET;
const SET = VFIO_DEVICE_FEATURE_SET;
const PROBE = VFIO_DEVICE_FEATURE_PROBE;
const DATA_FD = 5;

const memory = new UserMemory();
let spy: SpyV2;
let opened: boolean[];
let openDataFd: OpenDataFd;

beforeEach(() => {
  spy = new SpyV2(v2Sim('qat,size=16K').device);
  opened = [];
  openDataFd = (resuming, tell) => {
    opened.push(resuming);
    tell(DATA_FD);
  };
});

/** The errno, or `OK`, of a request with these flags, data and `argsz`. */
function ask(flags: number, data: Uint8Array = new Uint8Array(8), argsz = HEADER + data.length): string {
  const bytes = new Uint8Array(HEADER + data.length);
  vfio_device_feature.encode({ argsz, flags }, bytes);
  bytes.set(data, HEADER);
  return outcome(() => deviceFeature(memory.argument(memory.put(bytes)), spy, openDataFd));
}

/** The data that the request has left behind. */
const answer = (): Uint8Array => memory.end(8);

function setState(device_state: number): [answer: string, data_fd: number] {
  const data = vfio_device_feature_mig_state.encode({ device_state, data_fd: 77 });
  return [
    ask(SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, data),
    vfio_device_feature_mig_state.decode(answer()).data_fd,
  ];
}

describe('VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2', () => {
  const feature = VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;
  const none = new Uint8Array(0);
  const answers = (spec: string): string[] => {
    const { device } = v2Sim(spec);
    return [SET, PROBE | SET, GET, PROBE | GET].map((flags) => {
      const bytes = vfio_device_feature.encode({ argsz: HEADER, flags: flags | feature });
      return outcome(() => deviceFeature(memory.argument(memory.put(bytes)), device, openDataFd));
    });
  };

  it('can be set, if the driver has it', () => {
    expect(answers('mlx5,kernel=7.1')).toEqual(['OK', 'OK', 'EINVAL', 'EINVAL']);
    expect(answers('mlx5,kernel=6.12')).toEqual(['ENOTTY', 'ENOTTY', 'ENOTTY', 'ENOTTY']);
    expect(ask(SET | feature, none)).toBe('ENOTTY');
  });

  it('is asked for by the flags of QEMU 11, and changes nothing but what precopy info says', () => {
    const { device, bar } = v2Sim('mlx5,kernel=7.1,reinit=2');
    const bytes = vfio_device_feature.encode({ argsz: 8, flags: 0x2000c });
    expect(deviceFeature(memory.argument(memory.put(bytes)), device, openDataFd)).toBe(0);
    const session = device.setState(V2.PRE_COPY);
    expect(session?.precopyInfo().reinit).toBe(false);
    bar[0] = 1;
    expect(session?.precopyInfo()).toMatchObject({ dirtyBytes: 0, reinit: true });
    device.precopyInfoV2?.(false);
    expect(session?.precopyInfo()).not.toHaveProperty('reinit');
  });

  it('is answered for all devices that are presented in v2, so that no driver is asked', () => {
    const bytes = vfio_device_feature.encode({ argsz: 8, flags: SET | feature });
    expect(isMigrationFeature(memory.argument(memory.put(bytes)))).toBe(true);
  });
});

describe('VFIO_DEVICE_FEATURE', () => {
  it.each([
    ['MIGRATION', VFIO_DEVICE_FEATURE_MIGRATION, [GET]],
    ['MIG_DEVICE_STATE', VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, [GET, SET, GET | SET]],
    ['MIG_DATA_SIZE', VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, [GET]],
  ])('%s has its operations, which a PROBE tells and does not carry out', (_, feature, has) => {
    for (const operations of [GET, SET, GET | SET]) {
      const data = new Uint8Array(0);
      expect(ask(PROBE | operations | feature, data)).toBe(has.includes(operations) ? 'OK' : 'EINVAL');
    }
    expect(spy.log).toEqual([]);
    expect([ask(feature), ask(GET | SET | feature)]).toEqual(['EINVAL', 'EINVAL']); // which one?
    expect(ask(GET | feature, undefined, HEADER + 7)).toBe('EINVAL');
    expect(isMigrationFeature(memory.argument(memory.put(vfio_device_feature.encode({ flags: GET | feature }))))).toBe(
      true,
    );
  });

  it('is not there for other features, and takes no flags and sizes that are none', () => {
    const other = VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
    expect([ask(GET | other), ask(PROBE | SET | other)]).toEqual(['ENOTTY', 'ENOTTY']);
    expect(isMigrationFeature(memory.argument(memory.put(vfio_device_feature.encode({ flags: other }))))).toBe(false);
    expect(ask(0x8_0000 | GET | VFIO_DEVICE_FEATURE_MIGRATION)).toBe('EINVAL');
    expect(ask(GET | VFIO_DEVICE_FEATURE_MIGRATION, undefined, HEADER - 1)).toBe('EINVAL');
    expect(outcome(() => deviceFeature(memory.argument(BAD_ADDRESS), spy, openDataFd))).toBe('EFAULT');
  });

  it('says what the device says', () => {
    expect(ask(GET | VFIO_DEVICE_FEATURE_MIGRATION)).toBe('OK');
    expect(Number(vfio_device_feature_migration.decode(answer()).flags)).toBe(spy.migrationFlags);
    expect(ask(GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE)).toBe('OK');
    expect(vfio_device_feature_mig_state.decode(answer())).toEqual({ device_state: V2.RUNNING, data_fd: -1 });
    expect(ask(GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE)).toBe('OK');
    expect(Number(vfio_device_feature_mig_data_size.decode(answer()).stop_copy_length)).toBe(spy.stopCopyLength());
  });
});

describe('MIG_DEVICE_STATE with SET', () => {
  it('gives a data fd where a session begins', () => {
    expect([setState(V2.STOP), setState(V2.STOP_COPY), setState(V2.STOP), setState(V2.RESUMING)]).toEqual([
      ['OK', -1],
      ['OK', DATA_FD],
      ['OK', -1],
      ['OK', DATA_FD],
    ]);
    expect(opened).toEqual([false, true]);
  });

  it('says data_fd -1 where it fails, and leaves the device alone for a state that is none', () => {
    expect(setState(8)).toEqual(['EINVAL', -1]);
    expect(spy.log).toEqual([]);
    openDataFd = () => {
      throw failure('EMFILE');
    };
    expect(setState(V2.STOP_COPY)).toEqual(['EMFILE', -1]);
  });

  it('says nothing yet where the device says so', () => {
    spy.options = {
      before() {
        throw notYet();
      },
    };
    expect(setState(V2.STOP)).toEqual(['EAGAIN', 77]);
  });

  it('does nothing for a user who cannot be answered', () => {
    const bytes = new Uint8Array(HEADER + 8);
    const flags = SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
    vfio_device_feature.encode({ argsz: bytes.length, flags }, bytes);
    const argument = { ...memory.argument(memory.put(bytes)), write: () => memory.argument(BAD_ADDRESS).write(bytes) };
    expect(outcome(() => deviceFeature(argument, spy, openDataFd))).toBe('EFAULT');
    expect(spy.log).toEqual([]);
  });
});
