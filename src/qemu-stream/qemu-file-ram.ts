import { corrupt, type Cursor } from './qemu-file-cursor.ts';

/**
 * Low bits of the u64 before each RAM record (`RAM_SAVE_FLAG_*`, QEMU migration/ram.c); the other bits are an address.
 * A page is at least 1 KiB on every target, so the low ten bits are never part of an address.
 */
export const RAM_SAVE_FLAG = {
  ZERO: 0x02,
  MEM_SIZE: 0x04,
  PAGE: 0x08,
  EOS: 0x10,
  CONTINUE: 0x20,
  XBZRLE: 0x40,
  HOOK: 0x80,
  COMPRESS_PAGE: 0x100,
  MULTIFD_FLUSH: 0x200,
} as const;

const FLAGS = 0x3ff;
const PAGE_RECORDS = RAM_SAVE_FLAG.ZERO | RAM_SAVE_FLAG.PAGE | RAM_SAVE_FLAG.XBZRLE | RAM_SAVE_FLAG.COMPRESS_PAGE;

export interface RamLayout {
  readonly pageSize: number;
  /** With the capability `x-ignore-shared`, each block of the block list carries an address as well. */
  readonly ignoreShared: boolean;
  /** With the capability `mapped-ram` (QEMU 9.0), the pages lie in the block list, each block's at a place of its own. */
  readonly mapped: boolean;
}

const MAPPED_RAM_HDR_VERSION = 1;

/** Skips the payload of a `ram` section, up to and including its EOS record. */
export function skipRam(cursor: Cursor, layout: RamLayout): void {
  for (;;) {
    const offset = cursor.at;
    const word = cursor.u64('a RAM record');
    const flags = word % (FLAGS + 1);
    const record = flags & ~RAM_SAVE_FLAG.CONTINUE;
    // A page record names its block, unless it continues in the block of the one before.
    if (record & PAGE_RECORDS && !(flags & RAM_SAVE_FLAG.CONTINUE)) skipName(cursor);
    switch (record) {
      case RAM_SAVE_FLAG.EOS:
        return;
      case RAM_SAVE_FLAG.MEM_SIZE:
        skipBlockList(cursor, word - flags, layout);
        break;
      case RAM_SAVE_FLAG.ZERO:
        cursor.skip(1, 'a zero page');
        break;
      case RAM_SAVE_FLAG.PAGE:
        cursor.skip(layout.pageSize, 'a RAM page');
        break;
      case RAM_SAVE_FLAG.XBZRLE:
        cursor.skip(1, 'an XBZRLE header');
        cursor.skip(cursor.u16('an XBZRLE length'), 'an XBZRLE page');
        break;
      case RAM_SAVE_FLAG.COMPRESS_PAGE:
        cursor.skip(cursor.u32('a compressed length'), 'a compressed page');
        break;
      case RAM_SAVE_FLAG.MULTIFD_FLUSH:
        break;
      default:
        throw corrupt(`reading a RAM record at offset ${offset}: flags 0x${flags.toString(16)} cannot be parsed`);
    }
  }
}

/** The block list of a START section: name and length of each block, until the lengths add up to the total. */
function skipBlockList(cursor: Cursor, total: number, layout: RamLayout): void {
  for (let left = total; left > 0;) {
    const offset = cursor.at;
    skipName(cursor);
    const length = cursor.u64('a RAM block length');
    if (length > left || length === 0) {
      throw corrupt(`reading the RAM block at offset ${offset}: length ${length}, at most ${left} are left`);
    }
    left -= length;
    if (layout.ignoreShared) cursor.skip(8, 'a RAM block address');
    if (layout.mapped) skipMapped(cursor, length);
  }
}

function skipName(cursor: Cursor): void {
  cursor.skip(cursor.u8('a RAM block name'), 'a RAM block name');
}

/** The header of a mapped block (`MappedRamHeader`, QEMU migration/ram.c), and its pages, behind which the stream goes on. */
function skipMapped(cursor: Cursor, length: number): void {
  const offset = cursor.at;
  const version = cursor.u32('a mapped RAM version');
  cursor.skip(8, 'a page size');
  cursor.skip(8, 'the place of a bitmap');
  const pages = cursor.u64('the place of the pages');
  if (version !== MAPPED_RAM_HDR_VERSION) {
    throw corrupt(`reading mapped RAM at offset ${offset}: version ${version} is not ${MAPPED_RAM_HDR_VERSION}`);
  }
  if (pages === 0) return; // a block that is shared and therefore ignored has none
  if (pages < cursor.at) throw corrupt(`reading mapped RAM at offset ${offset}: its pages lie at ${pages}, before it`);
  cursor.skip(pages - cursor.at + length, 'the pages of a RAM block');
}
