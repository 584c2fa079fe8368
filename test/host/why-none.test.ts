import { describe, expect, it } from 'vitest';
import { variantDriver, type Variant } from '../../src/host/variant-driver.ts';
import { whyNone } from '../../src/host/why-none.ts';
import { hostWith } from '../support/host-tree.ts';

const tail = (id: string): string => `pci:${id}sv00008086sd00000000bc0Bsc40i00`;
const QAT = tail('v00008086d00004941');
const MLX5 = tail('v000015B3d0000101E');
const GRACE = tail('v000010DEd00002342');
const OTHER = tail('v00001234d00005678');

/** As depmod writes it. */
const ALIASES = `# Aliases extracted from modules themselves.
alias pci:v00008086d00004941sv*sd*bc*sc*i* qat_4xxx
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
alias vfio_pci:v00008086d*sv*sd*bc*sc*i* wide_vfio_pci
alias vfio_pci:v00008086d00004941sv*sd*bc*sc*i* qat_vfio_pci
alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci
`;
const BUILT_IN =
  'vfio.license=GPL v2\0mlx5_vfio_pci.alias=vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*\0other.alias=pci:v*\0';

describe('variantDriver', () => {
  const lists = {
    '/lib/modules/6.12.1/modules.alias': ALIASES,
    '/lib/modules/6.12.1/modules.builtin.modinfo': BUILT_IN,
  };
  const of = (modalias: string, release = '6.12.1'): Variant => variantDriver(hostWith(lists), release, modalias);

  it.each([
    [QAT, 'qat_vfio_pci'],
    [MLX5, 'mlx5_vfio_pci'],
    [GRACE, 'nvgrace_gpu_vfio_pci'],
    [tail('v00008086d00001111'), 'wide_vfio_pci'],
    [OTHER, undefined],
    [`x${QAT}`, undefined],
    ['', undefined],
  ])('of %s is %s', (modalias, module) => expect(of(modalias)).toEqual({ listed: true, module }));

  it('is not known if the lists of this kernel are not there', () => {
    expect(of(QAT, '6.12.2')).toEqual({ listed: false });
  });
});

describe('whyNone', () => {
  const has = (module?: string): Variant => ({ listed: true, module });
  const unlisted: Variant = { listed: false };
  const bind = 'docs/kernel-devices.md says how to bind it';
  const none = 'vfio-pci has no migration';

  it.each<[what: string, driver: string, modalias: string | undefined, variant: Variant, release: string, ...string[]]>(
    [
      [
        'another driver',
        'vfio-pci',
        QAT,
        has('qat_vfio_pci'),
        '6.12.1',
        none,
        `bind qat_vfio_pci, this kernel's driver for this device, which can; ${bind}`,
        'qat_vfio_pci',
      ],
      [
        'one that nobody knows',
        'vfio-pci',
        OTHER,
        has('new_vfio_pci'),
        '6.12.1',
        none,
        `bind new_vfio_pci, this kernel's driver for this device, which may; ${bind}`,
        'new_vfio_pci',
      ],
      [
        'one that is too old',
        'vfio-pci',
        tail('v00001AF4d00001041'),
        has('virtio_vfio_pci'),
        '6.8.0-31-generic',
        none,
        'the driver for this device is virtio_vfio_pci, which migrates from Linux 6.13 on; this is 6.8.0-31-generic',
        'virtio_vfio_pci',
      ],
      [
        'too old a kernel',
        'vfio-pci',
        QAT,
        has(),
        '6.1.0-27-amd64',
        none,
        'qat_vfio_pci can, from Linux 6.10 on; this is 6.1.0-27-amd64',
        'qat_vfio_pci',
      ],
      [
        'a kernel before v2',
        'vfio-pci',
        MLX5,
        has(),
        '5.17.0',
        none,
        'mlx5_vfio_pci can, from Linux 5.18 on; this is 5.17.0',
        'mlx5_vfio_pci',
      ],
      [
        'a kernel without the driver',
        'vfio-pci',
        MLX5,
        has(),
        '6.12.1',
        none,
        'mlx5_vfio_pci can, which this kernel was built without',
        'mlx5_vfio_pci',
      ],
      [
        'lists that are not there',
        'vfio-pci',
        MLX5,
        unlisted,
        '6.12.1',
        none,
        `bind mlx5_vfio_pci, which can, if this kernel has it; ${bind}`,
        'mlx5_vfio_pci',
      ],
      [
        'lists that are not there, and a device that is not known',
        'vfio-pci',
        OTHER,
        unlisted,
        '6.12.1',
        none,
        'cannot tell whether this kernel has a driver that does: /lib/modules/6.12.1/modules.alias cannot be read',
        '',
      ],
      [
        'no driver',
        'vfio-pci',
        OTHER,
        has(),
        '6.12.1',
        `${none}, and no driver of this kernel that has is for this device`,
        '',
        '',
      ],
      [
        'a variant driver without migration',
        'vfio-pci',
        GRACE,
        has('nvgrace_gpu_vfio_pci'),
        '6.12.1',
        `${none}, and no driver of this kernel that has is for this device`,
        '',
        '',
      ],
      [
        'the driver itself, too old',
        'virtio_vfio_pci',
        tail('v00001AF4d00001041'),
        has('virtio_vfio_pci'),
        '6.12.1',
        'virtio_vfio_pci migrates from Linux 6.13 on, this is 6.12.1',
        '',
        'virtio_vfio_pci',
      ],
      ['a mediated device', 'mtty', 'mdev:', has(), '6.1.0', 'mtty has no migration', '', ''],
      ['a device without a name for drivers', 'nvidia', undefined, has(), '6.1.0', 'nvidia has no migration', '', ''],
    ],
  )('of %s', (_, driver, modalias, variant, release, reason = '', remedy = '', variantDriver = '') => {
    expect(whyNone({ driver, modalias, variant, release })).toEqual({
      reason,
      remedy: remedy || null,
      variantDriver: variantDriver || null,
    });
  });

  it('says what a driver asks for that does not offer migration for this device', () => {
    const of = (driver: string) => whyNone({ driver, modalias: MLX5, variant: has('mlx5_vfio_pci'), release: '7.1.0' });
    expect(of('mlx5_vfio_pci')).toMatchObject({
      reason: 'mlx5_vfio_pci does not offer migration for this device',
      remedy: expect.stringContaining('migratable enable') as string,
    });
    expect(of('xe-vfio-pci')).toMatchObject({
      variantDriver: 'xe_vfio_pci',
      remedy: expect.stringContaining('xe') as string,
    });
  });
});
