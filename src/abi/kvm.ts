import { struct } from './struct.ts';

/** `KVM_SET_DEVICE_ATTR` of a device of KVM, and `struct kvm_device_attr` (linux/kvm.h, 3.10). */
export const KVM_SET_DEVICE_ATTR = 0x4018_aee1;
export const kvm_device_attr = struct('kvm_device_attr', 24, {
  flags: ['u32', 0],
  group: ['u32', 4],
  attr: ['u64', 8],
  addr: ['u64', 16],
});

/** Of KVM's device for VFIO: which files are a VM's (3.13, as groups; any file of VFIO 6.6). `addr` is where the descriptor is. */
export const KVM_DEV_VFIO_FILE = 1;
export const KVM_DEV_VFIO_FILE_ADD = 1n;
export const KVM_DEV_VFIO_FILE_DEL = 2n;
