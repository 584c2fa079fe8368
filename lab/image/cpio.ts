/** A file, directory or link of an archive. */
export type Entry =
  | { readonly path: string; readonly kind: 'directory' }
  | { readonly path: string; readonly kind: 'link'; readonly target: string }
  | { readonly path: string; readonly kind: 'file'; readonly data: Uint8Array; readonly executable?: boolean };

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** A cpio archive in the `newc` format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst). */
export function cpio(entries: readonly Entry[]): Buffer {
  const records = entries.map((entry, n) => record(entry.path, n + 1, modeOf(entry), dataOf(entry)));
  return Buffer.concat([...records, record('TRAILER!!!', 0, 0, Buffer.alloc(0))]);
}

function modeOf(entry: Entry): number {
  if (entry.kind === 'directory') return S_IFDIR | 0o755;
  if (entry.kind === 'link') return S_IFLNK | 0o777;
  return S_IFREG | (entry.executable === true ? 0o755 : 0o644);
}

function dataOf(entry: Entry): Uint8Array {
  if (entry.kind === 'directory') return Buffer.alloc(0);
  return entry.kind === 'link' ? Buffer.from(entry.target) : entry.data;
}

/** Thirteen numbers of eight hexadecimal digits, the name and the data, each of both padded to four bytes. */
function record(path: string, inode: number, mode: number, data: Uint8Array): Buffer {
  const name = Buffer.from(`${path}\0`);
  // c_ino c_mode c_uid c_gid c_nlink c_mtime c_filesize c_maj c_min c_rmaj c_rmin c_namesize c_chksum
  const numbers = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length, 0];
  const header = `070701${numbers.map((number) => number.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([pad(Buffer.concat([Buffer.from(header), name])), pad(data)]);
}

function pad(data: Uint8Array): Uint8Array {
  return Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
}
