import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { errnoName } from '../../src/abi/errno.ts';
import { F_GETFL, O_NONBLOCK } from '../../src/abi/fcntl.ts';
import { trySyscall } from '../../src/sys/libc.ts';
import { Outlet } from '../../src/sys/outlet.ts';
import { socketPair } from '../../src/sys/socket.ts';

const LINE = Buffer.from('a line\n');
const { O_NONBLOCK: NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** What write() returned: bytes, or the errno's name. */
function write(outlet: Outlet, bytes: Uint8Array = LINE): number | string | undefined {
  const written = outlet.write(bytes);
  return written < 0 ? errnoName(-written) : written;
}

/** Writes until something else than all bytes comes of it, which must happen. */
function fill(outlet: Outlet, size: number): number | string | undefined {
  const bytes = Buffer.alloc(size, 'x');
  for (let n = 0; n < 10_000; n += 1) {
    const written = write(outlet, bytes);
    if (written !== size) return written;
  }
  throw new Error('it took all');
}

describe('Outlet', () => {
  let directory = '';
  const open: number[] = [];
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-outlet-'));
  });
  afterEach(() => {
    for (const fd of open.splice(0)) closeSync(fd);
    rmSync(directory, { recursive: true });
  });
  const keep = (fd: number): number => {
    open.push(fd);
    return fd;
  };

  /** A pipe, of which neither end is set to non-blocking. */
  function pipe(): [reader: number, writer: number] {
    const path = join(directory, 'pipe');
    expect(spawnSync('mkfifo', [path]).status).toBe(0);
    const opener = openSync(path, O_RDONLY | NONBLOCK);
    const writer = keep(openSync(path, O_WRONLY));
    const reader = openSync(path, O_RDONLY);
    closeSync(opener);
    return [reader, writer];
  }

  it('writes to files, where others go on writing', () => {
    const path = join(directory, 'file');
    const fd = keep(openSync(path, 'w'));
    const outlet = new Outlet(fd);
    expect(outlet.kind).toBe('file');
    writeSync(fd, 'before\n');
    expect(write(outlet)).toBe(LINE.length);
    writeSync(fd, 'after\n');
    expect(readFileSync(path, 'utf8')).toBe('before\na line\nafter\n');
  });

  it('does not wait for the reader of a pipe that is full, whose flags stay as they are', () => {
    const [reader, writer] = pipe();
    const outlet = new Outlet(writer);
    expect([outlet.kind, write(outlet)]).toEqual(['pipe', LINE.length]);
    expect(fill(outlet, 4096)).toBe('EAGAIN');
    expect(write(outlet)).toBe('EAGAIN');
    expect(trySyscall('fcntl', writer, F_GETFL) & O_NONBLOCK).toBe(0);
    const bytes = Buffer.alloc(65536);
    expect(readSync(reader, bytes)).toBeGreaterThan(LINE.length);
    expect(bytes.subarray(0, LINE.length).toString()).toBe('a line\n');
    expect(write(outlet)).toBe(LINE.length);
    closeSync(reader);
    expect(write(outlet)).toBe('EPIPE');
  });

  it('does not wait for the reader of a socket either', () => {
    const [mine, theirs] = socketPair();
    const outlet = new Outlet(mine.number);
    expect([outlet.kind, write(outlet)]).toEqual(['socket', LINE.length]);
    expect(fill(outlet, 4096)).toBe('EAGAIN');
    expect(trySyscall('fcntl', mine.number, F_GETFL) & O_NONBLOCK).toBe(0);
    theirs.close(); // with what it has not read
    expect([write(outlet), write(outlet)]).toEqual(['ECONNRESET', 'EPIPE']);
    mine.close();
  });

  it('says what a device has against it', () => {
    expect(write(new Outlet(keep(openSync('/dev/full', 'w'))))).toBe('ENOSPC');
    expect(write(new Outlet(keep(openSync('/dev/null', 'w'))))).toBe(LINE.length);
    expect(write(new Outlet(keep(openSync('/dev/null', 'r'))))).toBe('EBADF');
  });
});
