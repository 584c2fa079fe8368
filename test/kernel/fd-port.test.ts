import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FdPort } from '../../src/kernel/fd-port.ts';
import { addressOf, PAGE_SIZE } from '../../src/sys/libc.ts';
import { noise } from '../support/bytes.ts';
import { thrownBy } from '../support/errno.ts';

const REGION = { index: 9, offset: BigInt(PAGE_SIZE) };
/** Of the region's pages, the third begins there, and so it is mapped. */
const THIRD = 3 * PAGE_SIZE;
const BYTES = noise(16 * PAGE_SIZE);

describe('FdPort, with a file in the place of the device', () => {
  let directory = '';
  let path = '';
  let fd = -1;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'shim-fd-port-'));
    path = join(directory, 'device');
    writeFileSync(path, BYTES);
    fd = openSync(path, 'r+');
  });
  afterEach(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  it('reads, writes and maps at the place of a region', () => {
    const port = new FdPort({ number: fd });
    const into = new Uint8Array(8);
    expect(port.read(REGION, 16, into)).toBe(8);
    expect(into).toBeBytes(BYTES.subarray(PAGE_SIZE + 16, PAGE_SIZE + 24));
    expect(port.write(REGION, 5000, Uint8Array.of(1, 2, 3))).toBe(3);
    expect([...readFileSync(path).subarray(PAGE_SIZE + 5000, PAGE_SIZE + 5003)]).toEqual([1, 2, 3]);
    const mapped = port.map(REGION, 2 * PAGE_SIZE, 2 * PAGE_SIZE);
    expect(mapped).toBeBytes(BYTES.subarray(THIRD, THIRD + 2 * PAGE_SIZE));
    mapped[0] = 7;
    expect(readFileSync(path)[THIRD]).toBe(7);
  });

  it('maps for as long as somebody uses it, also if he fails: the file does not stay open', () => {
    const port = new FdPort({ number: fd });
    const mappings = (): number => readFileSync('/proc/self/maps', 'utf8').split(path).length - 1;
    port.withMap(REGION, 2 * PAGE_SIZE, PAGE_SIZE, (bytes) => {
      expect(bytes).toBeBytes(BYTES.subarray(THIRD, THIRD + PAGE_SIZE));
      bytes[0] = 7;
      expect(mappings()).toBe(1);
    });
    expect(() =>
      port.withMap(REGION, 0, PAGE_SIZE, () => {
        throw new Error('failed');
      }),
    ).toThrow('failed');
    expect([readFileSync(path)[THIRD], mappings()]).toEqual([7, 0]);
  });

  it('says how little there was', () => {
    const port = new FdPort({ number: fd });
    expect(port.read({ ...REGION, offset: BigInt(BYTES.length - 2) }, 0, new Uint8Array(8))).toBe(2);
    expect(port.read({ ...REGION, offset: BigInt(BYTES.length) }, 0, new Uint8Array(8))).toBe(0);
  });

  it.each<[string, (port: FdPort) => unknown, string]>([
    ['VFIO_DEVICE_GET_INFO', (port) => port.getInfo(new Uint8Array(20)), 'ioctl(VFIO_DEVICE_GET_INFO)'],
    ['a region', (port) => port.getRegionInfo(new Uint8Array(32)), 'ioctl(VFIO_DEVICE_GET_REGION_INFO)'],
    ['a feature', (port) => port.feature('PROBE', new Uint8Array(8)), 'ioctl(VFIO_DEVICE_FEATURE PROBE)'],
    ['a reset', (port) => port.reset(), 'ioctl(VFIO_DEVICE_RESET)'],
  ])('hands on what the kernel says to %s', (_, ask, syscall) => {
    expect(thrownBy(() => ask(new FdPort({ number: fd })))).toMatchObject({
      code: 'ERR_SYSCALL',
      errno: 'ENOTTY',
      syscall,
    });
  });

  it('hands on why an access fails', () => {
    const port = new FdPort({ number: -1 });
    const failure = { code: 'ERR_SYSCALL', errno: 'EBADF' };
    expect(thrownBy(() => port.read(REGION, 0, new Uint8Array(4)))).toMatchObject({ ...failure, syscall: 'pread64' });
    expect(thrownBy(() => port.write(REGION, 0, new Uint8Array(4)))).toMatchObject({ ...failure, syscall: 'pwrite64' });
  });

  it('puts the address of what a struct points to into the argument', () => {
    const bytes = new Uint8Array(64);
    const argument = new Uint8Array(32);
    thrownBy(() => new FdPort({ number: fd }).feature('SET', argument, { at: 24, bytes }));
    expect(new DataView(argument.buffer).getBigUint64(24, true)).toBe(BigInt(addressOf(bytes)));
  });
});
