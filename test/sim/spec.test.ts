import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DRIVERS, driversWith, optionsOf } from '../../src/sim/drivers.ts';
import { formatSpec, parseSpec } from '../../src/sim/spec.ts';
import { thrownBy } from '../support/errno.ts';
import { numRuns } from '../support/runs.ts';

const common = {
  seed: 0,
  fault: [],
  block: 0,
  kernel: '6.12',
  dma: 0,
  'dma-at': undefined,
  'dma-from': undefined,
  'dma-log': 'on',
  'dma-peers': false,
  irq: 0,
  config: 256,
  'reset-method': 'flr',
};
const stream = { short: 0 };
const compatibility = { compat: 1, version: 1 };
const block = { size: 65_536, ...common, ...stream, ...compatibility, real: false };
const plain = {
  qat: block,
  pds: { ...block, recovery: 0 },
  hisi: { ...block, up: true },
  virtio: { size: 65_536, ...common, ...stream, compat: 1, ratelimit: 8 },
  xe: { size: 65_536, ...common, ...stream, compat: 1, unready: 0, nosize: false },
  mtty: { size: 8, ...common, ...stream, ports: 1 },
  'vendor-v1': {
    size: 2 ** 20,
    ...common,
    ...compatibility,
    dirty: 0,
    section: 2 ** 20,
    strict: false,
    libvfio: false,
  },
};

describe('parseSpec', () => {
  test.each<[string, keyof typeof plain, object]>([
    ['qat', 'qat', {}],
    ['qat,size=256M', 'qat', { size: 2 ** 28 }],
    ['qat,size=1g,seed=7,compat=2,version=3', 'qat', { size: 2 ** 30, seed: 7, compat: 2, version: 3 }],
    ['qat,short=100,block=2', 'qat', { short: 100, block: 2 }],
    ['qat,seed=4294967295', 'qat', { seed: 4_294_967_295 }],
    ['pds', 'pds', {}],
    ['hisi,size=1T', 'hisi', { size: 2 ** 40 }],
    ['qat,real=1', 'qat', { real: true, size: 3942 }],
    ['qat,size=2K,real=1', 'qat', { real: true, size: 2048 }],
    ['hisi,real=1,up=0', 'hisi', { real: true, size: 136, up: false }],
    ['pds,recovery=3,real=1', 'pds', { real: true, size: 65_504, recovery: 3 }],
    ['virtio,ratelimit=1', 'virtio', { ratelimit: 1 }],
    ['xe,unready=2,nosize=1', 'xe', { unready: 2, nosize: true }],
    ['mtty', 'mtty', {}],
    ['mtty,size=8,ports=2', 'mtty', { ports: 2 }],
    ['vendor-v1', 'vendor-v1', {}],
    [
      'vendor-v1,size=64M,section=8K,dirty=3,strict=1',
      'vendor-v1',
      { size: 2 ** 26, section: 8192, dirty: 3, strict: true },
    ],
    ['vendor-v1,strict=0,libvfio=1', 'vendor-v1', { libvfio: true }],
    ['qat,dma=2000', 'qat', { dma: 2000 }],
    ['qat,dma=100000,dma-log=off', 'qat', { dma: 100_000, 'dma-log': 'off' }],
    ['pds,dma=1,dma-peers=1', 'pds', { dma: 1, 'dma-peers': true }],
    ['mtty,dma=1,dma-at=0xA0000+4k', 'mtty', { dma: 1, 'dma-at': { at: 0xa_0000, size: 4096 } }],
    ['vendor-v1,dma=1,dma-at=32M+4G', 'vendor-v1', { dma: 1, 'dma-at': { at: 2 ** 25, size: 2 ** 32 } }],
    ['qat,dma=1,dma-from=1M+8K', 'qat', { dma: 1, 'dma-from': { at: 2 ** 20, size: 8192 } }],
    [
      'qat,dma=1,dma-at=8K+4K,dma-from=0+8K',
      'qat',
      { dma: 1, 'dma-at': { at: 8192, size: 4096 }, 'dma-from': { at: 0, size: 8192 } },
    ],
    ['qat,dma=1,dma-at=0xfffffffff000+4096', 'qat', { dma: 1, 'dma-at': { at: 2 ** 48 - 4096, size: 4096 } }],
    ['qat,fault=read@3:EIO', 'qat', { fault: [{ step: 'read', nth: 3, errno: 'EIO', fatal: false }] }],
    [
      'qat,fault=STOP_COPY@1:EBUSY!,fault=write@20:ENOTSUPP',
      'qat',
      {
        fault: [
          { step: 'STOP_COPY', nth: 1, errno: 'EBUSY', fatal: true },
          { step: 'write', nth: 20, errno: 'ENOTSUPP', fatal: false },
        ],
      },
    ],
  ])('takes %s, and formatSpec writes it back', (text, driver, values) => {
    const spec = parseSpec(text);
    expect(spec).toEqual({ driver, ...plain[driver], ...values });
    expect(parseSpec(formatSpec(spec))).toEqual(spec);
  });

  test.each([
    ['', `no driver ""; there are ${DRIVERS.join(', ')}`],
    ['nosuch', 'no driver "nosuch"; there are'],
    ['QAT', 'no driver "QAT"'],
    ['qat ', 'no driver "qat "'],
    ['toString', 'no driver "toString"'],
    [
      'qat,',
      'no option "" of qat; there are size, seed, fault, block, kernel, dma, dma-at, dma-from, dma-log, dma-peers, irq, config, reset-method, short, compat, version',
    ],
    ['qat,real=1,size=3943', 'size=3943 is more than real=1 has room for, 3942'],
    ['hisi,real=1,size=64K', 'size=64K is more than real=1 has room for, 136'],
    ['pds,recovery=2', 'recovery is for real=1'],
    ['hisi,up=0', 'up is for real=1'],
    ['qat,bogus=1', 'no option "bogus" of qat; there are size, seed'],
    ['qat,Size=1', 'no option "Size"'],
    ['qat,toString=1', 'no option "toString"'],
    ['qat,constructor=1', 'no option "constructor"'],
    ['qat,__proto__=1', 'no option "__proto__"'],
    ['qat,driver=1', 'no option "driver"'],
    ['qat,faults=1', 'no option "faults"'],
    ['qat,ports=2', 'no option "ports" of qat, which mtty has; there are size, seed'],
    [
      'mtty,compat=2',
      `no option "compat" of mtty, which ${driversWith('compat').join(', ')} have; there are size, seed`,
    ],
    [
      'vendor-v1,short=1',
      `no option "short" of vendor-v1, which ${driversWith('short').join(', ')} have; there are size`,
    ],
    ['qat,size', 'size= is not a whole number from 0 on'],
    ['qat,size=', 'size= is not a whole number from 0 on'],
    ['qat,size=-1', 'size=-1 is not a whole number from 0 on'],
    ['qat,size=1.5K', 'size=1.5K is not a whole number from 0 on'],
    ['qat,size=1P', 'size=1P is not a whole number from 0 on'],
    ['qat,size=0x10', 'size=0x10 is not a whole number from 0 on'],
    ['qat,size=1e3', 'size=1e3 is not a whole number from 0 on'],
    ['qat,size= 1', 'size= 1 is not a whole number from 0 on'],
    ['qat,size=1=2', 'size=1=2 is not a whole number from 0 on'],
    ['qat,size=0', 'size=0 is not within 1 and 1T'],
    ['qat,size=1025G', 'size=1025G is not within 1 and 1T'],
    ['mtty,size=16', 'size=16 is not 8: the memory of mtty is its 8 registers'],
    ['mtty,ports=3', 'ports=3 is not within 1 and 2'],
    ['qat,size=99999999999999999999', 'size=99999999999999999999 is too large'],
    ['qat,size=1K,size=1K', 'size is given twice'],
    ['qat,seed=1,size=1K,seed=2', 'seed is given twice'],
    ['vendor-v1,strict=0,strict=1', 'strict is given twice'],
    ['mtty,ports=0', 'ports=0 is not within 1 and 2'],
    [
      'qat,section=8K',
      'no option "section" of qat, which vendor-v1, nvidia-v1, draft-2018, draft-2019 have; there are',
    ],
    [
      'qat,dirty=1',
      'no option "dirty" of qat, which mlx5, vendor-v1, nvidia-v1, draft-2018, draft-2019 have; there are',
    ],
    ['pds,strict=1', 'no option "strict" of pds, which vendor-v1 has; there are size'],
    ['vendor-v1,section=4096', 'section=4096 is not within 8K and 1G'],
    ['vendor-v1,section=10000', 'section=10000 is not a multiple of 4096'],
    ['vendor-v1,section=2G', 'section=2G is not within 8K and 1G'],
    ['vendor-v1,section=0', 'section=0 is not within 8K and 1G'],
    ['vendor-v1,strict=2', 'strict=2 is neither 0 nor 1'],
    ['vendor-v1,libvfio=2', 'libvfio=2 is neither 0 nor 1'],
    ['hisi,libvfio=1', 'no option "libvfio" of hisi, which vendor-v1 has; there are size'],
    ['vendor-v1,strict=yes', 'strict=yes is not a whole number from 0 on'],
    ['qat,seed=4G', 'seed=4G does not fit 32 bits'],
    ['qat,compat=4294967296', 'compat=4294967296 does not fit 32 bits'],
    ['qat,version=4G', 'version=4G does not fit 32 bits'],
    ['qat,block=4G', 'block=4G does not fit 32 bits'],
    ['vendor-v1,dirty=4G', 'dirty=4G does not fit 32 bits'],
    ['qat,dma=100001', 'dma=100001 is not within 0 and 100000'],
    ['qat,dma=-1', 'dma=-1 is not a whole number from 0 on'],
    ['qat,dma=1,dma-log=no', 'dma-log=no is not on or off'],
    ['qat,dma-log=off', 'dma-log is for dma=RATE'],
    ['qat,dma-peers=1', 'dma-peers is for dma=RATE'],
    ['qat,config=512', 'config=512 is not 256 or 4K'],
    ['qat,reset-method=acpi', 'reset-method=acpi is not flr or pm or bus'],
    ['qat,dma=1,dma-peers=2', 'dma-peers=2 is neither 0 nor 1'],
    ['qat,dma-at=0+4K', 'dma-at is for dma=RATE'],
    ['qat,dma-from=0+4K', 'dma-from is for dma=RATE'],
    ['qat,dma=1,dma-from=0x1000', 'dma-from=0x1000 is not ADDRESS+SIZE'],
    ['qat,dma=1,dma-at=4K+8K,dma-from=8K+4K', 'dma-from overlaps dma-at'],
    ['qat,dma=1,dma-at=8K+4K,dma-from=4K+8K', 'dma-from overlaps dma-at'],
    ['qat,dma=1,dma-at=', 'dma-at= is not ADDRESS+SIZE'],
    ['qat,dma=1,dma-at=0x1000', 'dma-at=0x1000 is not ADDRESS+SIZE'],
    ['qat,dma=1,dma-at=0x+4K', 'dma-at=0x+4K is not ADDRESS+SIZE'],
    ['qat,dma=1,dma-at=0x1000-4K', 'dma-at=0x1000-4K is not ADDRESS+SIZE'],
    ['qat,dma=1,dma-at=0+0x1000', 'dma-at=0+0x1000 has a SIZE that is not a whole number from 0 on'],
    ['qat,dma=1,dma-at=0x800+4K', 'dma-at=0x800+4K is not whole pages of 4096 bytes'],
    ['qat,dma=1,dma-at=0+100', 'dma-at=0+100 is not whole pages of 4096 bytes'],
    ['qat,dma=1,dma-at=0+0', 'dma-at=0+0 has not between one page and 4G'],
    ['qat,dma=1,dma-at=0+8G', 'dma-at=0+8G has not between one page and 4G'],
    ['qat,dma=1,dma-at=0xfffffffff000+8K', 'dma-at=0xfffffffff000+8K ends behind 256T'],
    ['qat,dma=1,dma-at=9007199254740991T+4K', 'dma-at=9007199254740991T+4K has an ADDRESS that is too large'],
    ['qat,dma=1,dma-at=0+4K,dma-at=0+4K', 'dma-at is given twice'],
    ['qat,fault', 'fault= is not STEP@N:ERRNO[!]'],
    ['qat,fault=read:EIO', 'fault=read:EIO is not STEP@N:ERRNO[!]'],
    ['qat,fault=read@0:EIO', 'fault=read@0:EIO is not STEP@N:ERRNO[!]'],
    ['qat,fault=READ@1:EIO', 'fault=READ@1:EIO is not STEP@N:ERRNO[!] with STEP one of read, write, STOP,'],
    ['qat,fault=ERROR@1:EIO', 'fault=ERROR@1:EIO is not STEP@N:ERRNO[!]'],
    ['qat,fault=read@1:EIO!!', 'fault=read@1:EIO!! is not STEP@N:ERRNO[!]'],
    ['qat,fault=read@1:EBOGUS', 'fault=read@1:EBOGUS names no errno that there is'],
    ['qat,fault=read@1:5', 'fault=read@1:5 names no errno that there is'],
  ])('refuses %j and says why', (text, why) => {
    const error = thrownBy(() => parseSpec(text));
    expect(error).toMatchObject({ code: 'ERR_SPEC', errno: 'EINVAL' });
    expect(error.message).toContain(`device ${JSON.stringify(text)}: ${why}`);
  });

  test('either gives a usable SPEC or an ERR_SPEC, whatever it is given', () => {
    const word = fc.oneof(
      fc.constantFrom(...DRIVERS, 'size', 'seed', 'fault', 'section', 'strict', 'ports', 'valueOf', '1', '64K', '-1'),
      fc.constantFrom('read@1:EIO', 'write@2:ENOSPC!', 'STOP@1', ''),
      fc.string({ maxLength: 6 }),
    );
    const separator = fc.constantFrom(',', '=', ',', '=', ':', '@');
    const text = fc.array(fc.tuple(word, separator)).map((parts) => parts.flat().join('').slice(0, -1));
    fc.assert(
      fc.property(text, (spec) => {
        try {
          const parsed = parseSpec(spec);
          expect(Object.keys(parsed).toSorted()).toEqual(
            ['driver', ...Object.keys(optionsOf(parsed.driver))].toSorted(),
          );
          expect(parseSpec(formatSpec(parsed))).toEqual(parsed);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_SPEC' });
        }
      }),
      { numRuns: numRuns() },
    );
  });
});
