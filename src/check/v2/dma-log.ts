import { cleanBitmap, type DmaLog, type IovaRange } from '../../vfio/dma-log.ts';
import { mustBe, NotTried, prepare, type Rule } from '../rule.ts';
import type { V2Subject } from './subject.ts';

type V2Rule = Rule<V2Subject>;

const PAGE = 4096n;
/** As a VMM would have it: drivers have a least size (drivers/vfio/pci/mlx5/cmd.c 6.12, mlx5vf_create_tracker). */
const RANGE: IovaRange = { iova: 0n, length: 4n << 30n };
/** As much as a driver reads at once (drivers/vfio/pci/pds/dirty.c 6.12: a word of 64 pages). */
const PART: IovaRange = { iova: 0n, length: 64n * PAGE };

const UAPI = 'linux/vfio.h 6.12, VFIO_DEVICE_FEATURE_DMA_LOGGING';
const CORE = 'drivers/vfio/vfio_main.c 6.12, vfio_ioctl_device_feature_logging_start';

/** A rule about the log, which is ended after it. */
function logRule(
  id: string,
  sentence: string,
  source: string,
  tried: (log: DmaLog, subject: V2Subject) => void,
): V2Rule {
  return {
    id,
    sentence,
    source,
    exempts: ({ log }) => (log === undefined ? 'the driver has no log of DMA' : undefined),
    try(subject) {
      const { log } = subject;
      if (log === undefined) throw new NotTried('the driver has no log of DMA');
      try {
        tried(log, subject);
      } finally {
        subject.refusal(() => log.stop());
      }
    },
  };
}

function begin(log: DmaLog): void {
  prepare(() => log.start([RANGE], PAGE));
}

function refusesRanges(id: string, what: string, ranges: readonly IovaRange[]): V2Rule {
  return logRule(id, `DMA_LOGGING_START refuses ${what} with EINVAL.`, CORE, (log, subject) => {
    const errno = subject.refusal(() => log.start(ranges, PAGE));
    mustBe(errno === 'EINVAL', `it is answered with ${errno ?? 'success'}`);
  });
}

/** The log of memory that the device writes to. */
export const dmaLogRules: readonly V2Rule[] = [
  logRule(
    'v2-log-start',
    'DMA_LOGGING_START begins a log, and tells its page size, a power of two.',
    `${UAPI}_START`,
    (log) => {
      const size = log.start([RANGE], PAGE);
      mustBe(size > 0n && (size & (size - 1n)) === 0n, `the page size is ${size}`);
    },
  ),
  logRule(
    'v2-log-second-start',
    'DMA_LOGGING_START is refused while there is a log.',
    `${UAPI}_START`,
    (log, subject) => {
      begin(log);
      mustBe(subject.refusal(() => log.start([RANGE], PAGE)) !== undefined, 'it is answered with success');
    },
  ),
  logRule('v2-log-report', 'DMA_LOGGING_REPORT reads the log.', `${UAPI}_REPORT`, (log) => {
    begin(log);
    log.readAndClear(PART, cleanBitmap(PART, PAGE));
  }),
  logRule(
    'v2-log-report-page-size',
    'DMA_LOGGING_REPORT takes another page size than the log has.',
    `${UAPI}_REPORT`,
    (log) => {
      begin(log);
      prepare(() => log.readAndClear(PART, cleanBitmap(PART, PAGE)));
      log.readAndClear(PART, cleanBitmap(PART, 16n * PAGE));
    },
  ),
  logRule('v2-log-report-keeps', 'DMA_LOGGING_REPORT sets bits, and clears none.', `${UAPI}_REPORT`, (log) => {
    begin(log);
    const bitmap = cleanBitmap(PART, PAGE);
    bitmap.bits.fill(0xff);
    prepare(() => log.readAndClear(PART, bitmap));
    mustBe(
      bitmap.bits.every((byte) => byte === 0xff),
      'bits that were set are clear',
    );
  }),
  logRule(
    'v2-log-report-without',
    'DMA_LOGGING_REPORT is refused while there is no log.',
    `${UAPI}_REPORT`,
    (log, subject) => {
      const errno = subject.refusal(() => log.readAndClear(PART, cleanBitmap(PART, PAGE)));
      mustBe(errno !== undefined, 'it is answered with success');
    },
  ),
  logRule('v2-log-stop', 'DMA_LOGGING_STOP ends the log, and another can begin.', `${UAPI}_STOP`, (log) => {
    begin(log);
    log.stop();
    log.start([RANGE], PAGE);
  }),
  refusesRanges('v2-log-no-range', 'a log of no range', []),
  refusesRanges('v2-log-unaligned', 'a range that does not begin with a page', [{ iova: 1n, length: RANGE.length }]),
  refusesRanges('v2-log-overlap', 'ranges that overlap', [RANGE, { iova: PAGE, length: RANGE.length }]),
];
