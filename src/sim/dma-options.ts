import { DMA_PAGE, DMA_WINDOW_LIMIT, type DmaWindow } from './dma.ts';
import { choice, count, flag, within, type Option, type ValuesOf } from './option.ts';
import { formatSize, parseSize } from './size.ts';

/** Behind the last address that the emulated container maps. */
const ADDRESSES = 2 ** 48;

/** `ADDRESS+SIZE`, whole pages both. */
const windowOption = (example: string, meaning: string): Option<DmaWindow | undefined> => ({
  meaning: `ADDRESS+SIZE, e.g. ${example}: ${meaning}`,
  initial: undefined,
  parse: (texts, wrong) => {
    const [text = '', second] = texts;
    if (second !== undefined) throw wrong('is given twice');
    const [, address = '', length = ''] = /^(0x[0-9a-f]{1,12}|\d+[KMGT]?)\+(\w+)$/i.exec(text) ?? [];
    if (length === '') throw wrong('is not ADDRESS+SIZE', text);
    const number = (what: string, part: string): number =>
      parseSize(part, (why) => wrong(`has ${what} that ${why}`, text));
    const at = /^0x/i.test(address) ? Number(address) : number('an ADDRESS', address);
    const size = number('a SIZE', length);
    if (at % DMA_PAGE !== 0 || size % DMA_PAGE !== 0) throw wrong(`is not whole pages of ${DMA_PAGE} bytes`, text);
    if (size === 0 || size > DMA_WINDOW_LIMIT)
      throw wrong(`has not between one page and ${formatSize(DMA_WINDOW_LIMIT)}`, text);
    if (at + size > ADDRESSES) throw wrong(`ends behind ${formatSize(ADDRESSES)}`, text);
    return { at, size };
  },
  format: (window) => (window === undefined ? [] : [`0x${window.at.toString(16)}+${formatSize(window.size)}`]),
});

/** More than a VMM takes; each costs it and the supervisor a few microseconds. */
const MOST_IRQS = 10_000;

/** Of every driver, under `run` and `serve`: the interrupts that its device raises. */
export const irqOption: Option<number | 'dma'> = {
  meaning: 'run: interrupts that the device raises in a second, while it runs; or dma: one with each page of dma=RATE',
  initial: 0,
  parse: (texts, wrong) => {
    if (texts.length === 1 && texts[0] === 'dma') return 'dma';
    return count('', 0, within(0, MOST_IRQS)).parse(texts, wrong);
  },
  format: (value) => [String(value)],
};

/** Of every driver, under `run`: the DMA that its device does. */
export const dmaOptions = {
  dma: count(
    "run: pages of the VMM's memory that the device writes to in a second, while it runs",
    0,
    within(0, 100_000),
  ),
  'dma-at': windowOption('0x2000000+16M', 'where, if not in the third quarter of the largest mapping'),
  'dma-from': windowOption('0x3000000+16M', 'with dma, where the device reads what it writes behind its records'),
  'dma-log': choice('with dma, off tells nobody which pages were written to, so that a migration loses them', [
    'on',
    'off',
  ]),
  'dma-peers': flag(
    'with dma, 1 has each write go to the other devices of the run as well, and counts those to stopped ones',
  ),
};

/** What is wrong with options that do not go together. */
export function checkDma(values: ValuesOf<typeof dmaOptions & { irq: typeof irqOption }>): string | undefined {
  const { 'dma-at': to, 'dma-from': from } = values;
  if (values.dma > 0) {
    const overlap = to && from && to.at < from.at + from.size && from.at < to.at + to.size;
    return overlap === true ? 'dma-from overlaps dma-at' : undefined;
  }
  if (values.irq === 'dma') return 'irq=dma is for dma=RATE';
  if (to !== undefined) return 'dma-at is for dma=RATE';
  if (from !== undefined) return 'dma-from is for dma=RATE';
  if (values['dma-log'] === 'off') return 'dma-log is for dma=RATE';
  return values['dma-peers'] ? 'dma-peers is for dma=RATE' : undefined;
}
