import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DRIVERS, parseSize, parseSpec, specHelp, type SimSpec } from '../../src/sim/spec.ts';
import { thrownBy } from '../support/errno.ts';
import { numRuns } from '../support/runs.ts';

const plain: SimSpec = {
  driver: 'qat',
  size: 65_536,
  seed: 0,
  compat: 1,
  version: 1,
  faults: [],
  short: 0,
  block: 0,
  dirty: 0,
  section: 0,
  strict: false,
  libvfio: false,
  ports: 1,
};

describe('parseSpec', () => {
  test.each<[string, Partial<SimSpec>]>([
    ['qat', {}],
    ['qat,size=256M', { size: 2 ** 28 }],
    ['qat,size=1g,seed=7,compat=2,version=3', { size: 2 ** 30, seed: 7, compat: 2, version: 3 }],
    ['qat,short=100,block=2', { short: 100, block: 2 }],
    ['qat,seed=4294967295', { seed: 4_294_967_295 }],
    ['pds', { driver: 'pds' }],
    ['hisi,size=1T', { driver: 'hisi', size: 2 ** 40 }],
    ['mtty', { driver: 'mtty', size: 8 }],
    ['mtty,ports=2', { driver: 'mtty', size: 8, ports: 2 }],
    ['vendor-v1', { driver: 'vendor-v1', size: 2 ** 20, section: 2 ** 20 }],
    [
      'vendor-v1,size=64M,section=8K,dirty=3,strict=1',
      { driver: 'vendor-v1', size: 2 ** 26, section: 8192, dirty: 3, strict: true },
    ],
    ['vendor-v1,strict=0', { driver: 'vendor-v1', size: 2 ** 20, section: 2 ** 20 }],
    ['qat,fault=read@3:EIO', { faults: [{ step: 'read', nth: 3, errno: 'EIO', fatal: false }] }],
    [
      'qat,fault=STOP_COPY@1:EBUSY!,fault=write@20:ENOTSUPP',
      {
        faults: [
          { step: 'STOP_COPY', nth: 1, errno: 'EBUSY', fatal: true },
          { step: 'write', nth: 20, errno: 'ENOTSUPP', fatal: false },
        ],
      },
    ],
  ])('takes %s', (text, expected) => {
    expect(parseSpec(text)).toEqual({ ...plain, ...expected });
  });

  test.each([
    ['', 'no driver ""; there are qat, mtty, pds, hisi, vendor-v1'],
    ['nosuch', 'no driver "nosuch"; there are'],
    ['QAT', 'no driver "QAT"'],
    ['qat ', 'no driver "qat "'],
    ['toString', 'no driver "toString"'],
    ['qat,', 'no option ""; there are size, seed'],
    ['qat,bogus=1', 'no option "bogus"; there are size, seed'],
    ['qat,Size=1', 'no option "Size"'],
    ['qat,toString=1', 'no option "toString"'],
    ['qat,constructor=1', 'no option "constructor"'],
    ['qat,__proto__=1', 'no option "__proto__"'],
    ['qat,driver=1', 'no option "driver"'],
    ['qat,faults=1', 'no option "faults"'],
    ['qat,size', 'size= is not a whole number from 0 on'],
    ['qat,size=', 'size= is not a whole number from 0 on'],
    ['qat,size=-1', 'size=-1 is not a whole number from 0 on'],
    ['qat,size=1.5K', 'size=1.5K is not a whole number from 0 on'],
    ['qat,size=1P', 'size=1P is not a whole number from 0 on'],
    ['qat,size=0x10', 'size=0x10 is not a whole number from 0 on'],
    ['qat,size=1e3', 'size=1e3 is not a whole number from 0 on'],
    ['qat,size= 1', 'size= 1 is not a whole number from 0 on'],
    ['qat,size=1=2', 'size=1=2 is not a whole number from 0 on'],
    ['qat,size=0', 'size=0 is not within 1 and 1099511627776'],
    ['qat,size=1025G', 'size=1100585369600 is not within 1 and 1099511627776'],
    ['mtty,size=16', 'the memory of mtty is its 8 registers'],
    ['mtty,ports=3', 'ports=3: mtty has 1 or 2'],
    ['qat,size=99999999999999999999', 'size=99999999999999999999 is too large'],
    ['qat,size=1K,size=1K', 'size is given twice'],
    ['qat,seed=1,size=1K,seed=2', 'seed is given twice'],
    ['vendor-v1,strict=0,strict=1', 'strict is given twice'],
    ['mtty,ports=0', 'ports=0'],
    ['qat,ports=2', 'ports=2'],
    ['qat,section=8K', 'section, dirty, strict and libvfio are options of vendor-v1'],
    ['qat,dirty=1', 'section, dirty, strict and libvfio are options of vendor-v1'],
    ['pds,strict=1', 'section, dirty, strict and libvfio are options of vendor-v1'],
    ['vendor-v1,section=4096', 'section=4096 is not a multiple of 4096 within 8192 and 1073741824'],
    ['vendor-v1,section=10000', 'section=10000 is not a multiple of 4096'],
    ['vendor-v1,section=2G', 'section=2147483648 is not a multiple of 4096 within'],
    ['vendor-v1,section=0', 'section=0 is not a multiple of 4096 within'],
    ['vendor-v1,strict=2', 'strict=2 is neither 0 nor 1'],
    ['vendor-v1,libvfio=2', 'libvfio=2 is neither 0 nor 1'],
    ['hisi,libvfio=1', 'section, dirty, strict and libvfio are options of vendor-v1'],
    ['vendor-v1,strict=yes', 'strict=yes is not a whole number from 0 on'],
    ['qat,seed=4G', 'seed=4294967296 does not fit 32 bits'],
    ['qat,compat=4294967296', 'compat=4294967296 does not fit 32 bits'],
    ['qat,version=4G', 'version=4294967296 does not fit 32 bits'],
    ['qat,block=4G', 'block=4294967296 does not fit 32 bits'],
    ['vendor-v1,dirty=4G', 'dirty=4294967296 does not fit 32 bits'],
    ['qat,fault', 'fault= is not STEP@N:ERRNO[!]'],
    ['qat,fault=read:EIO', 'fault=read:EIO is not STEP@N:ERRNO[!]'],
    ['qat,fault=read@0:EIO', 'fault=read@0:EIO is not STEP@N:ERRNO[!]'],
    ['qat,fault=READ@1:EIO', 'fault=READ@1:EIO is not STEP@N:ERRNO[!] with STEP one of read, write, STOP,'],
    ['qat,fault=ERROR@1:EIO', 'fault=ERROR@1:EIO is not STEP@N:ERRNO[!]'],
    ['qat,fault=read@1:EIO!!', 'fault=read@1:EIO!! is not STEP@N:ERRNO[!]'],
    ['qat,fault=read@1:EBOGUS', 'no errno EBOGUS'],
    ['qat,fault=read@1:5', 'no errno 5'],
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
          expect(DRIVERS).toContain(parsed.driver);
          expect(Object.keys(parsed).toSorted()).toEqual(Object.keys(plain).toSorted());
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_SPEC' });
        }
      }),
      { numRuns: numRuns() },
    );
  });
});

describe('parseSize', () => {
  const wrong = new Error('not a size');
  test.each([
    ['0', 0],
    ['1', 1],
    ['64K', 65_536],
    ['64k', 65_536],
    ['3M', 3 * 2 ** 20],
    ['2g', 2 ** 31],
    ['5T', 5 * 2 ** 40],
    ['8191T', 8191 * 2 ** 40],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
    ['007', 7],
  ])('of %s is %i', (text, size) => {
    expect(parseSize(text, () => wrong)).toBe(size);
  });

  test.each([
    '',
    'K',
    '1KB',
    '1 K',
    '-1',
    '+1',
    '1.0',
    '0x1',
    '1_000',
    '8192T',
    '999999999999999T',
    '9007199254740992',
    '9'.repeat(400),
    'NaN',
    '١',
  ])('of %j is the error of the caller', (text) => {
    expect(() => parseSize(text, () => wrong)).toThrow(wrong);
  });
});

describe('specHelp', () => {
  test('names every driver and every option', () => {
    const help = specHelp();
    for (const driver of DRIVERS) expect(help).toContain(driver);
    const keys = [
      'size',
      'seed',
      'compat',
      'version',
      'fault',
      'short',
      'block',
      'dirty',
      'section',
      'strict',
      'libvfio',
      'ports',
    ];
    for (const key of keys) expect(help).toMatch(new RegExp(`^ {2}${key} {2,}\\S`, 'm'));
  });
});
