import assert from 'node:assert/strict';
import { release } from 'node:os';
import { migrateLive } from '../../src/vmm/migration.ts';
import {
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
} from '../../src/abi/vfio-v2.ts';
import { check, note } from '../guest/check.ts';
import { checkLive } from '../guest/crossing.ts';
import { Mtty } from '../guest/mtty.ts';
import { noteNewestQemu } from '../guest/newest-qemu.ts';
import { assertArrived, NEW, OLD, startBoth, type End } from '../guest/pair.ts';
import { RawDevice } from '../guest/raw-device.ts';
import { askedOf, traced } from '../guest/trace.ts';

/** Long, as it takes another kernel: the newest that Debian has, with the jobs of mtty and with what this kernel has besides. */

note(`Linux ${release()}`);
noteNewestQemu();

const SET_PRECOPY_INFO = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;
const NEWEST: End = { qemu: 'newest' };
const HOLDING: End = { ...OLD, shim: [...(OLD.shim ?? []), '--hold-precopy', '4K'] };
const ROUND: End = { qemu: 'newest', shim: ['--present', 'v2', '--round-trip'] };

await check('it has VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2', () => {
  using device = new RawDevice(Mtty.create());
  assert.equal(device.feature(VFIO_DEVICE_FEATURE_PROBE | SET_PRECOPY_INFO, new Uint8Array(0)), '0');
  assert.equal(device.feature(SET_PRECOPY_INFO, new Uint8Array(0)), '0');
});

await import('./state-file.ts');
await import('./bridged.ts');
await import('./native.ts');
await import('./handed-over.ts');

await checkLive([
  ['native newest to the same', NEWEST, NEWEST],
  ['7.2 under run to native newest', OLD, NEWEST],
  ['native newest to 7.2 under run', NEWEST, OLD],
  ['newest under run --round-trip to native 10.0', ROUND, NEW],
  ['native 10.0 to newest under run --round-trip', NEW, ROUND],
]);

await check(
  '7.2 under run --hold-precopy, which asks the driver for VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2',
  async (bed) => {
    const { source, destination } = await startBoth(bed, traced(bed, HOLDING, 'source'), NEWEST, 0x6d);
    await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
    await assertArrived(bed, source, destination, 0x6d);
    const asked = askedOf(bed, 'source').filter(({ driver }) => driver === 'SET MIG_PRECOPY_INFOv2');
    assert.deepEqual(asked, [{ driver: 'SET MIG_PRECOPY_INFOv2', answer: 0 }]);
  },
);
