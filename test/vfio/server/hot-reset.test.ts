import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../../src/abi/vfio.ts';
import { refuse } from '../../../src/vfio/server/refuse.ts';
import { hotResetRequest, type AloneOnBus } from '../../../src/vfio/server/hot-reset.ts';
import { outcome } from '../../support/errno.ts';
import { FILLER, UserMemory } from '../../support/user-memory.ts';

const memory = new UserMemory();
/** Descriptors of the user: of which group each is; of none the others that there are. */
const GROUPS: ReadonlyMap<number, number | undefined> = new Map([
  [5, 9000],
  [6, 9001],
  [7, undefined],
]);
let resets: number;
let device: AloneOnBus;

beforeEach(() => {
  resets = 0;
  device = {
    segment: 0x1234,
    bus: 0x90,
    devfn: 0x0b,
    group: 9000,
    devid: undefined,
    groupOf: (fd) => {
      if (GROUPS.has(fd)) return GROUPS.get(fd);
      throw refuse('EBADF', `no ${fd}`);
    },
    reset: () => {
      resets += 1;
    },
  };
});

function ioctl(command: number, bytes: Uint8Array, room = bytes.length): string {
  const at = memory.put(bytes, room);
  return outcome(() => hotResetRequest(memory.argument(at), command, device));
}

/** linux/vfio.h of Linux 6.12, drivers/vfio/pci/vfio_pci_core.c: vfio_pci_ioctl_get_pci_hot_reset_info. */
describe('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', () => {
  const ask = (argsz: number, room = Math.max(argsz, 12)): string =>
    ioctl(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, vfio_pci_hot_reset_info.encode({ argsz, flags: 0xff, count: 77 }), room);

  it('wants room for its header, and says how many devices there are if there is none for them', () => {
    for (let argsz = 0; argsz < 12; argsz += 1) expect(ask(argsz)).toBe('EINVAL');
    for (let argsz = 12; argsz < 20; argsz += 1) {
      expect(ask(argsz)).toBe('ENOSPC');
      const bytes = memory.end(argsz);
      expect(vfio_pci_hot_reset_info.decode(bytes)).toEqual({ argsz, flags: 0, count: 1 });
      expect(bytes.subarray(12).every((byte) => byte === FILLER)).toBe(true);
    }
  });

  it('names the device itself, which is alone on its bus, by its group or by its id', () => {
    for (const argsz of [20, 21, 40]) {
      expect(ask(argsz)).toBe('OK');
      const bytes = memory.end(argsz);
      expect(bytes.subarray(0, 20)).toBeBytes(
        Uint8Array.of(argsz, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x28, 0x23, 0, 0, 0x34, 0x12, 0x90, 0x0b),
      );
      expect(bytes.subarray(20).every((byte) => byte === FILLER)).toBe(true);
    }
    device = { ...device, devid: 3 };
    expect(ask(20)).toBe('OK');
    expect(memory.end(20)).toBeBytes(
      Uint8Array.of(20, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0x34, 0x12, 0x90, 0x0b),
    );
    expect(resets).toBe(0);
  });

  it('fails where there is no memory', () => {
    expect(ask(20, 11)).toBe('EFAULT');
    expect(ask(20, 19)).toBe('EFAULT');
  });
});

/** vfio_pci_ioctl_pci_hot_reset, vfio_pci_ioctl_pci_hot_reset_groups, vfio_pci_dev_set_hot_reset. */
describe('VFIO_DEVICE_PCI_HOT_RESET', () => {
  const request = (
    fds: readonly number[],
    { argsz = 12 + 4 * fds.length, flags = 0, count = fds.length } = {},
  ): string =>
    ioctl(
      VFIO_DEVICE_PCI_HOT_RESET,
      Buffer.concat([vfio_pci_hot_reset.encode({ argsz, flags, count }), new Uint8Array(Int32Array.from(fds).buffer)]),
    );

  it.each<[string, readonly number[], Parameters<typeof request>[1], string]>([
    ['its group', [5], {}, 'OK'],
    ['its group, whatever argsz says of it', [5], { argsz: 12 }, 'OK'],
    ['another group', [6], {}, 'EINVAL'],
    ['a descriptor of something else', [7], {}, 'EINVAL'],
    ['a descriptor that is not there', [8], {}, 'EBADF'],
    ['a descriptor below 0', [-1], {}, 'EBADF'],
    ['no group', [], {}, 'EINVAL'],
    ['more groups than there are devices', [5, 6], {}, 'EINVAL'],
    ['far more groups', [5], { count: 0xffff_ffff }, 'EINVAL'],
    ['flags', [5], { flags: 1 }, 'EINVAL'],
    ['no room', [5], { argsz: 11 }, 'EINVAL'],
    ['no memory for the descriptor', [], { count: 1 }, 'EFAULT'],
  ])('by a group: %s', (_, fds, head, errno) => {
    expect(request(fds, head)).toBe(errno);
    expect(resets).toBe(errno === 'OK' ? 1 : 0);
  });

  it('by a node of its own: shows no group', () => {
    device = { ...device, devid: 3 };
    expect(request([5])).toBe('EINVAL');
    expect(request([], { flags: 1 })).toBe('EINVAL');
    expect(resets).toBe(0);
    expect(request([])).toBe('OK');
    expect(resets).toBe(1);
  });
});
