/** linux/vfio.h less the two migration protocols, which are in vfio-v1.ts and vfio-v2.ts. */
export * from './vfio-device.ts';
export * from './vfio-ioctl.ts';
export * from './vfio-iommu.ts';
