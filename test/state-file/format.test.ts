import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeHeader, encodeHeader, fileSize, HEADER_SIZE, type StateHeader } from '../../src/state-file/format.ts';
import { differences } from '../../src/state-file/identity.ts';
import { StateReader } from '../../src/state-file/reader.ts';
import { join, noise } from '../support/bytes.ts';
import { thrownBy } from '../support/errno.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { buffersOf, MemoryFile, stateFile } from '../support/state-files.ts';

const identities = fc.dictionary(fc.stringMatching(/^[a-zA-Z][a-zA-Z0-9]{0,8}$/), fc.string({ maxLength: 40 }), {
  maxKeys: 8,
});
const protocols = fc.constantFrom('v1' as const, 'v2' as const);
const buffers = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 6 });
const files = fc.tuple(buffers, protocols, identities).map((parts) => stateFile(...parts));

/** The error code with which a file is refused; undefined where it is read to its end. */
function refusal(bytes: Uint8Array): string | undefined {
  try {
    new StateReader(new MemoryFile(bytes)).check();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

describe('a state file', () => {
  it('gives back what was written, buffer by buffer', { timeout: PROPERTY_TIMEOUT }, () => {
    fc.assert(
      fc.property(buffers, protocols, identities, (parts, protocol, identity) => {
        const file = stateFile(parts, protocol, identity);
        const { header } = new StateReader(file);
        expect(header).toMatchObject({ protocol, buffers: parts.length, bytes: join(parts).length });
        expect(Object.entries(header.identity)).toEqual(Object.entries(identity));
        expect(buffersOf(file)).toEqual(parts);
        const body = file.bytes.subarray(HEADER_SIZE);
        expect(header.sha256).toBe(createHash('sha256').update(body).digest('hex'));
      }),
      { numRuns: numRuns() },
    );
  });

  it('cuts buffers that are larger than asked for, and no others', () => {
    const parts = [noise(10, 1), noise(25, 2), noise(20, 3)];
    const pieces = buffersOf(stateFile(parts), 20);
    expect(pieces.map(({ length }) => length)).toEqual([10, 20, 5, 20]);
    expect(pieces).toBeBytes(parts);
  });

  it('holds buffers of more than a block of the writer', () => {
    const parts = [noise(2 ** 20 - 9, 1), noise(2 ** 20 + 17, 2), noise(3, 3)];
    expect(buffersOf(stateFile(parts), 2 ** 22)).toBeBuffers(parts);
  });

  it('shows each bit that has changed', { timeout: PROPERTY_TIMEOUT }, () => {
    fc.assert(
      fc.property(files, fc.nat(), fc.nat({ max: 7 }), (file, place, bit) => {
        const bytes = file.bytes.slice();
        const at = place % bytes.length;
        bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
        expect(refusal(bytes)).toMatch(/^ERR_FILE_/);
      }),
      { numRuns: numRuns() },
    );
  });

  it('shows every changed bit of its numbers', () => {
    const { bytes } = stateFile([noise(100)]);
    for (let bit = 0; bit < 128 * 8; bit += 1) {
      const changed = bytes.slice();
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(refusal(changed), `bit ${bit}`).toMatch(/^ERR_FILE_/);
    }
  });

  it('shows where it was cut off', { timeout: PROPERTY_TIMEOUT }, () => {
    fc.assert(
      fc.property(files, fc.nat(), (file, place) => {
        const length = place % file.bytes.length;
        const code = length < 8 ? 'ERR_FILE_CORRUPT' : 'ERR_FILE_TRUNCATED';
        expect(refusal(file.bytes.slice(0, length))).toBe(code);
      }),
      { numRuns: numRuns() },
    );
  });

  it('shows what was put behind it, or into it, and what was exchanged', { timeout: PROPERTY_TIMEOUT }, () => {
    fc.assert(
      fc.property(files, fc.uint8Array({ minLength: 1, maxLength: 50 }), fc.nat(), (file, more, place) => {
        const at = place % file.bytes.length;
        const [before, behind] = [file.bytes.subarray(0, at), file.bytes.subarray(at)];
        expect(refusal(join([file.bytes, more]))).toBe('ERR_FILE_CORRUPT');
        const inserted = join([before, more, behind]);
        if (Buffer.compare(inserted, file.bytes) !== 0) expect(refusal(inserted)).toMatch(/^ERR_FILE_/);
        const over = file.bytes.slice();
        over.set(more.subarray(0, over.length - at), at);
        expect(refusal(over) === undefined).toBe(Buffer.compare(over, file.bytes) === 0);
      }),
      { numRuns: numRuns() },
    );
  });

  it('does not change between the check and its use unseen', () => {
    const file = stateFile([noise(100), noise(100, 2)]);
    const reader = new StateReader(file);
    reader.check();
    file.bytes[HEADER_SIZE + 150] = 1 + (file.bytes[HEADER_SIZE + 150] ?? 0);
    expect(thrownBy(() => [...reader.buffers(50)]).code).toBe('ERR_FILE_CORRUPT');
    file.bytes = file.bytes.slice(0, HEADER_SIZE + 30);
    expect(thrownBy(() => [...reader.buffers(50)]).code).toBe('ERR_FILE_TRUNCATED');
  });
});

describe('the header', () => {
  const header: StateHeader = {
    protocol: 'v1',
    identity: { driver: 'x' },
    bytes: 5 * 2 ** 32 + 1,
    buffers: 3 * 2 ** 32,
    sha256: 'ab'.repeat(32),
  };

  /** A header with something else at a place, and hashes that fit. */
  function made(change: (page: DataView) => void): Uint8Array {
    const page = encodeHeader(header);
    change(new DataView(page.buffer));
    page.fill(0, 72, 104);
    page.set(createHash('sha256').update(page).digest(), 72);
    return page;
  }

  it('has the layout of docs/state-file.md', () => {
    const page = Buffer.from(encodeHeader(header));
    expect(page.subarray(0, 8).toString()).toBe('VFIOSHIM');
    expect([page.readUInt32LE(8), page.readUInt32LE(12)]).toEqual([1, 1]);
    expect([page.readBigUInt64LE(16), page.readBigUInt64LE(24)]).toEqual([5n * 2n ** 32n + 1n, 3n * 2n ** 32n]);
    expect(page.readUInt32LE(32)).toBe(14);
    expect(page.subarray(40, 72).toString('hex')).toBe(header.sha256);
    expect(page.subarray(128, 143).toString()).toBe('{"driver":"x"}\0');
    expect(page.length).toBe(4096);
  });

  it('tells of states above 4 GiB', () => {
    expect(decodeHeader(encodeHeader(header), fileSize(header))).toEqual(header);
  });

  it('of a newer format is told from a damaged one', () => {
    const newer = made((view) => view.setUint32(8, 2, true));
    expect(thrownBy(() => decodeHeader(newer, fileSize(header)))).toMatchObject({
      code: 'ERR_FILE_VERSION',
      errno: 'EINVAL',
      message: 'is of format version 2; this vfio-shim reads 1',
    });
  });

  it.each<[string, (view: DataView) => void]>([
    ['protocol 3', (view) => view.setUint32(12, 3, true)],
    ['more bytes than there are numbers for', (view) => view.setBigUint64(16, 2n ** 64n - 1n, true)],
    ['more buffers than there are numbers for', (view) => view.setBigUint64(24, 2n ** 63n, true)],
    ['a sum that wraps', (view) => view.setBigUint64(24, 2n ** 61n, true)],
    ['an identity beyond the page', (view) => view.setUint32(32, 3969, true)],
    ['an identity of 4 GiB', (view) => view.setUint32(32, 0xffff_ffff, true)],
    ['an identity that is cut', (view) => view.setUint32(32, 13, true)],
    ['an identity that is no UTF-8', (view) => view.setUint8(130, 0xff)],
    ['version 0', (view) => view.setUint32(8, 0, true)],
  ])('with %s, and hashes that fit, is refused', (_what, change) => {
    expect(thrownBy(() => decodeHeader(made(change), fileSize(header)))).toMatchObject({
      code: 'ERR_FILE_CORRUPT',
      errno: 'EINVAL',
    });
  });

  it.each(['[]', 'null', '7', '{"a":1}', '{"a b":"c"}', '{"__proto__":"x"}', `{"a":"${'x'.repeat(257)}"}`, '{'])(
    'with the identity %s is refused',
    (text) => {
      const page = made((view) => {
        const bytes = Buffer.from(text);
        view.setUint32(32, bytes.length, true);
        bytes.forEach((byte, n) => view.setUint8(128 + n, byte));
      });
      expect(thrownBy(() => decodeHeader(page, fileSize(header))).code).toBe('ERR_FILE_CORRUPT');
    },
  );

  it('is not made of what does not fit', () => {
    const many = Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`k${n}`, '']));
    const long = Object.fromEntries(Array.from({ length: 32 }, (_, n) => [`k${n}`, 'x'.repeat(200)]));
    for (const identity of [many, long, { 'a b': '' }, { a: 'x'.repeat(300) }]) {
      expect(thrownBy(() => encodeHeader({ ...header, identity })).code).toBe('ERR_ARGUMENT');
    }
    expect(thrownBy(() => encodeHeader({ ...header, bytes: 2 ** 53 })).code).toBe('ERR_ARGUMENT');
  });
});

describe('lengths of buffers', () => {
  /** A file of one buffer that claims another length, with hashes that fit. */
  function claiming(length: bigint): Uint8Array {
    const file = stateFile([noise(100)]);
    new DataView(file.bytes.buffer).setBigUint64(HEADER_SIZE, length, true);
    const { header } = new StateReader(file);
    const sha256 = createHash('sha256').update(file.bytes.subarray(HEADER_SIZE)).digest('hex');
    file.write(encodeHeader({ ...header, sha256 }), 0);
    return file.bytes;
  }

  it.each([0n, 101n, 2n ** 31n, 2n ** 40n, 2n ** 53n, 2n ** 64n - 1n])('of %s are refused', (length) => {
    expect(refusal(claiming(length))).toBe('ERR_FILE_CORRUPT');
  });

  it('that leave data over are refused', () => {
    expect(refusal(claiming(99n))).toBe('ERR_FILE_CORRUPT');
    expect(refusal(claiming(100n))).toBeUndefined();
  });
});

describe('differences', () => {
  it('are what both devices tell, and tell differently', () => {
    expect(differences({ id: '1:2', driver: 'a', only: 'x' }, { id: '1:2', driver: 'b', mine: 'y' })).toEqual([
      'driver is "a" there and "b" here',
    ]);
    expect(differences({ id: 'a\u001B[0m' }, { id: 'b' })).toEqual([String.raw`id is "a\u001b[0m" there and "b" here`]);
    expect(differences({ toString: 'x' }, {})).toEqual([]);
  });
});
