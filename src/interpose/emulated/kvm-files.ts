import { KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL, kvm_device_attr } from '../../abi/kvm.ts';
import { CONTINUE, type Call } from '../trap/call.ts';
import { CallArgument } from '../trap/call-argument.ts';
import { identify, type FileOwner } from '../serve/descriptor.ts';

/**
 * A VM is told of a file of VFIO, or that it is its no more (virt/kvm/vfio.c of Linux 6.12: kvm_vfio_set_attr). KVM takes no file that is not
 * the kernel's, and QEMU gives a device up then that it has opened by its own node; nothing follows from it for a device that is emulated.
 */
export function setDeviceAttr(call: Call, owner: FileOwner): number {
  const argument = new CallArgument(call);
  const { group, attr, addr } = kvm_device_attr.decode(argument.read(kvm_device_attr.size));
  if (group !== KVM_DEV_VFIO_FILE || (attr !== KVM_DEV_VFIO_FILE_ADD && attr !== KVM_DEV_VFIO_FILE_DEL))
    return CONTINUE;
  const [fd = -1] = new Int32Array(argument.readAt(addr, 4).buffer);
  const what = identify(owner, call.tid, fd);
  return what?.kind === 'group' || what?.kind === 'device' ? 0 : CONTINUE;
}
