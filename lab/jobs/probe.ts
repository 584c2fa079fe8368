import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readSync } from 'node:fs';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_DEVICE_STATE,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../src/abi/vfio-v2.ts';
import { withAddress } from '../../src/sys/libc.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import * as features from '../../src/abi/vfio-v2.ts';
import { check } from '../guest/check.ts';
import type { Mdev } from '../guest/mdev.ts';
import { Mtty, type MttyType } from '../guest/mtty.ts';
import { RawDevice, type StateName } from '../guest/raw-device.ts';
import { V2Log } from '../guest/v2log.ts';

/** The driver still does what test/vectors/mtty-linux-6.12-probe.txt recorded of it, which the simulated mtty is made after. */

const recorded = readFileSync(new URL('../../test/vectors/mtty-linux-6.12-probe.txt', import.meta.url), 'utf8');
const lines = recorded.split('\n').map((line) => line.trimEnd());

/** The recorded lines that match, of which there must be `count`. */
function linesLike(pattern: RegExp, count: number): string[] {
  const found = lines.filter((line) => pattern.test(line));
  assert.equal(found.length, count, `recorded lines like ${pattern.source}`);
  return found;
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

await check('regions and interrupts are as recorded', () => {
  using device = new RawDevice(Mtty.create('mtty-1'));
  const { flags, num_regions, num_irqs } = device.info();
  const summary = `flags=${hex(flags)} regions=${num_regions} irqs=${num_irqs}`;
  assert.equal(linesLike(/^GET_INFO 0 argsz=24/, 1)[0], `GET_INFO 0 argsz=24 ${summary}`);
  const regions = Array.from({ length: 10 }, (_, index) => {
    const { answer, values } = device.region(index);
    const { flags, size, offset, argsz, cap_offset } = values;
    return `  region ${index}: ${answer} flags=${hex(flags)} size=${hex(size)} offset=${hex(offset)} argsz=${argsz} cap=${cap_offset}`;
  });
  assert.deepEqual(regions, linesLike(/^ {2}region \d:/, 10));
  const irqs = Array.from({ length: 5 }, (_, index) => {
    const { answer, values } = device.irq(index);
    return `  irq ${index}: ${answer} flags=${hex(values.flags)} count=${values.count}`;
  });
  assert.deepEqual(irqs, linesLike(/^ {2}irq \d:/, 5));
});

await check('PROBE of each feature is as recorded', () => {
  using device = new RawDevice(Mtty.create('mtty-1'));
  const [get, set] = [VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_SET];
  const seen = linesLike(/^ {2}PROBE [A-Z(]/, 10).map((line) => {
    const name = line.trim().split(/\s+/)[1] ?? '';
    const feature = name === '(99)' ? 99 : (features as Record<string, unknown>)[`VFIO_DEVICE_FEATURE_${name}`];
    assert.ok(typeof feature === 'number', name);
    const [g, s, both] = [get, set, get | set].map((flags) =>
      device.feature(VFIO_DEVICE_FEATURE_PROBE | flags | feature, new Uint8Array(64)),
    );
    return `  PROBE ${name.padEnd(18)} GET ${g} | SET ${s} | GET|SET ${both}`;
  });
  assert.deepEqual(seen, linesLike(/^ {2}PROBE [A-Z(]/, 10));
});

await check('every transition is as recorded', () => {
  using device = new RawDevice(Mtty.create('mtty-1'));
  const transition = /^ {2}(\w+) +-> (\w+|\(8\)) +ret=/;
  const seen = linesLike(transition, 63).map((line) => {
    const [, from = '', to = ''] = transition.exec(line) ?? [];
    assert.equal(device.reset(), '0');
    using begun = device.setState(VFIO_DEVICE_STATE[from as StateName]).fd;
    assert.equal(device.state(), from);
    const target = to === '(8)' ? 8 : VFIO_DEVICE_STATE[to as StateName];
    const { answer, fd } = device.setState(target);
    fd?.close();
    const data_fd = answer === '0' ? (fd === undefined ? '-1' : 'FD') : 'n/a';
    const had = begun === undefined ? '' : ' [cur had fd]';
    return `  ${from.padEnd(12)} -> ${to.padEnd(12)} ret=${answer} data_fd=${data_fd} now=${device.state()} dsize=${device.dataSize()}${had}`;
  });
  assert.deepEqual(seen, linesLike(transition, 63));
});

await check('DMA logging begins and ends as recorded, and cannot be reported; probe says so', () => {
  const mtty = Mtty.create('mtty-1');
  {
    using device = new RawDevice(mtty);
    const range = vfio_device_feature_dma_logging_range.encode({ iova: 0n, length: 4096n });
    const bitmap = new BigUint64Array(1);
    const [set, get] = [VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_GET];
    // SAFETY: one range, and a bitmap of one u64, which is what they take
    const begun = withAddress(range, (at) => {
      const values = { page_size: 4096n, num_ranges: 1, ranges: BigInt(at) };
      const control = vfio_device_feature_dma_logging_control.encode(values);
      return device.feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, control);
    });
    const reported = withAddress(bitmap, (at) => {
      const values = { iova: 0n, length: 4096n, page_size: 4096n, bitmap: BigInt(at) };
      const report = vfio_device_feature_dma_logging_report.encode(values);
      return device.feature(get | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, report);
    });
    const ended = device.feature(set | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, new Uint8Array(0));
    const [line] = linesLike(/^START \d; REPORT /, 1);
    assert.equal(`START ${begun}; REPORT ${reported} bm0=${bitmap[0]}; STOP ${ended}`, line);
  }
  assertRefused(mtty);
});

await check('a driver whose log works has none on this kernel either, and probe says so', () => {
  assertRefused(new V2Log());
});

/** What `probe` says of a log that the kernel does not report. */
function assertRefused({ group, uuid }: Mdev): void {
  const args = [CLI, 'probe', `vfio:${group}:${uuid}`];
  const found = JSON.parse(execFileSync(process.execPath, [...args, '--json'], { encoding: 'utf8' })) as object;
  assert.deepEqual({ ...found, dmaLogging: 'offered, REPORT refused (EOPNOTSUPP)' }, found);
  const words = execFileSync(process.execPath, args, { encoding: 'utf8' });
  assert.match(
    words,
    /^dmaLogging +offered, REPORT refused \(EOPNOTSUPP\): all of the guest's memory may count as dirty$/m,
  );
}

const SIZES: readonly (readonly [MttyType, number])[] = [
  ['mtty-1', 60],
  ['mtty-2', 96],
];
for (const [type, size] of SIZES) {
  await check(`the data of an ${type} has ${size} bytes and the recorded magic`, () => {
    linesLike(new RegExp(String.raw`direct RUNNING->STOP_COPY: one read\(500\) -> ${size}$`), 1);
    const [header = ''] = linesLike(/^precopy bytes\[24\]: /, 1);
    using device = new RawDevice(Mtty.create(type));
    assert.equal(device.dataSize(), size);
    using data = device.setState(VFIO_DEVICE_STATE.STOP_COPY).fd;
    assert.ok(data !== undefined);
    const bytes = Buffer.alloc(500);
    assert.equal(readSync(data.number, bytes), size);
    assert.equal(bytes.toString('hex', 0, 8), header.split(': ')[1]?.replaceAll(' ', '').slice(0, 16));
    assert.equal(readSync(data.number, bytes), 0);
  });
}
