import { expect, it } from 'vitest';
import { errnoNumber, type ErrnoName } from '../../src/abi/errno.ts';
import { VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 } from '../../src/abi/vfio-v2.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { startShimmedVm } from '../../tools/vmm/shim.ts';
import { compiledLibrary, describeWithCompiler } from '../support/compiler.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';

describeWithCompiler('VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 of a v1 device', () => {
  describeWithQemus(['newest'], 'which the newest QEMU asks for when it realizes one that has pre-copy', () => {
    const bed = useTestBed();

    /** A VM that gets this answer in place of the device's. */
    const start = (answer?: ErrnoName): Promise<Vm> => {
      const preload = (errno: ErrnoName): string[] => [
        'env',
        `LD_PRELOAD=${compiledLibrary('feature-answer')}`,
        `FEATURE_INDEX=${VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2}`,
        `FEATURE_ERRNO=${errnoNumber(errno)}`,
      ];
      const under = answer === undefined ? [] : preload(answer);
      return startShimmedVm(bed(), 'vm', [{ driver: 'vendor-v1' }], {
        qemu: 'newest',
        run: ['--present', 'v2'],
        under,
      });
    };

    it.each([undefined, 'ENOTTY'] as const)(
      'is ENOTTY, and the VM boots (answered by a library: %s)',
      async (answer) => {
        const vm = await start(answer);
        await vm.waitForFirmware();
        expect(vm.child.stderr).not.toContain('precopy info v2');
      },
    );

    it.each([
      ['EINVAL', 'Invalid argument'],
      ['EOPNOTSUPP', 'Operation not supported'],
    ] as const)('must not be %s: QEMU refuses the device', async (answer, words) => {
      await expect(start(answer)).rejects.toThrow(
        `VFIO migration init failed: failed to set precopy info v2: ${words}`,
      );
    });
  });
});
