/**
 * Every change of device_state that QEMU 5.2 to 7.2 have ever written (hw/vfio/migration.c of 5.2.0, 6.2.0, 7.2.0:
 * vfio_save_setup, vfio_save_complete_precopy, vfio_vmstate_change, vfio_migration_state_notifier, vfio_load_setup), `from>to`. No
 * v1 driver was ever met by another.
 */
export const QEMU_WROTE: ReadonlySet<string> = new Set([
  '1>3',
  '3>2',
  '2>2',
  '2>0',
  '0>1',
  '1>0',
  '2>1',
  '3>1',
  '0>2',
  '1>2',
  '1>4',
  '0>4',
  '4>1',
  '1>1',
]);
