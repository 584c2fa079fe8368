import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as abi from '../../src/abi/index.ts';
import { _IO, _IOC, _IOR, _IOW, _IOWR } from '../../src/abi/ioctl.ts';

/** The numbers as they appear in traces of system calls. */
const pinned = {
  VFIO_GET_API_VERSION: 0x3b64,
  VFIO_CHECK_EXTENSION: 0x3b65,
  VFIO_SET_IOMMU: 0x3b66,
  VFIO_GROUP_GET_STATUS: 0x3b67,
  VFIO_GROUP_SET_CONTAINER: 0x3b68,
  VFIO_GROUP_UNSET_CONTAINER: 0x3b69,
  VFIO_GROUP_GET_DEVICE_FD: 0x3b6a,
  VFIO_DEVICE_GET_INFO: 0x3b6b,
  VFIO_DEVICE_GET_REGION_INFO: 0x3b6c,
  VFIO_DEVICE_GET_IRQ_INFO: 0x3b6d,
  VFIO_DEVICE_SET_IRQS: 0x3b6e,
  VFIO_DEVICE_RESET: 0x3b6f,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: 0x3b70,
  VFIO_IOMMU_GET_INFO: 0x3b70,
  VFIO_IOMMU_SPAPR_TCE_GET_INFO: 0x3b70,
  VFIO_DEVICE_PCI_HOT_RESET: 0x3b71,
  VFIO_IOMMU_MAP_DMA: 0x3b71,
  VFIO_DEVICE_QUERY_GFX_PLANE: 0x3b72,
  VFIO_IOMMU_UNMAP_DMA: 0x3b72,
  VFIO_DEVICE_GET_GFX_DMABUF: 0x3b73,
  VFIO_IOMMU_ENABLE: 0x3b73,
  VFIO_DEVICE_IOEVENTFD: 0x3b74,
  VFIO_IOMMU_DISABLE: 0x3b74,
  VFIO_DEVICE_FEATURE: 0x3b75,
  VFIO_IOMMU_DIRTY_PAGES: 0x3b75,
  VFIO_IOMMU_SPAPR_REGISTER_MEMORY: 0x3b75,
  VFIO_DEVICE_BIND_IOMMUFD: 0x3b76,
  VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY: 0x3b76,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: 0x3b77,
  VFIO_IOMMU_SPAPR_TCE_CREATE: 0x3b77,
  VFIO_DEVICE_DETACH_IOMMUFD_PT: 0x3b78,
  VFIO_IOMMU_SPAPR_TCE_REMOVE: 0x3b78,
  VFIO_MIG_GET_PRECOPY_INFO: 0x3b79,
  VFIO_EEH_PE_OP: 0x3b79,
  SECCOMP_IOCTL_NOTIF_RECV: 0xc050_2100,
  SECCOMP_IOCTL_NOTIF_SEND: 0xc018_2101,
  SECCOMP_IOCTL_NOTIF_ID_VALID: 0x4008_2102,
  SECCOMP_IOCTL_NOTIF_ADDFD: 0x4018_2103,
  SECCOMP_IOCTL_NOTIF_SET_FLAGS: 0x4008_2104,
} satisfies Partial<Record<keyof typeof abi, number>>;

describe('ioctl numbers', () => {
  test('are those seen in traces', () => {
    const computed = Object.entries(abi).filter(([name]) => name in pinned);
    expect(Object.fromEntries(computed)).toEqual(pinned);
  });

  test('are all pinned here', () => {
    const numbers = Object.entries(abi).filter(
      ([name, value]) =>
        /^(VFIO|SECCOMP)_/.test(name) && typeof value === 'number' && [0x21, 0x3b].includes((value >>> 8) & 0xff),
    );
    expect(numbers.map(([name]) => name).toSorted()).toEqual(Object.keys(pinned).toSorted());
  });
});

describe('_IOC', () => {
  test('puts each part into its bits', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 1, max: 0x7f }),
        fc.nat(0xff),
        fc.nat(0x3fff),
        (dir, type, nr, size) => {
          const number = _IOC(dir, String.fromCharCode(type), nr, size);
          expect(number).toBe(dir * 2 ** 30 + size * 2 ** 16 + type * 2 ** 8 + nr);
        },
      ),
    );
  });

  test('is never negative', () => {
    expect(_IOWR('!', 0, 0x3fff)).toBe(0xffff_2100);
  });

  test('has one function per direction', () => {
    expect([_IO('T', 1), _IOW('T', 1, 4), _IOR('T', 1, 4), _IOWR('T', 1, 4)]).toEqual([
      0x5401, 0x4004_5401, 0x8004_5401, 0xc004_5401,
    ]);
  });
});
