import {
  chmodSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NewFile } from '../../src/state-file/new-file.ts';
import { OpenFile } from '../../src/state-file/open-file.ts';
import { thrownBy } from '../support/errno.ts';

const HELLO = Buffer.from('hello');

describe('NewFile', () => {
  let directory = '';
  let path = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'vfio-shim-new-file-'));
    path = join(directory, 'file');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function write(replace = false, at = path): void {
    using file = new NewFile(at, replace);
    file.write(HELLO, 0);
    file.commit();
  }

  it('is there when it is complete, for its owner only, and nothing beside it', () => {
    using file = new NewFile(path);
    expect([existsSync(path), existsSync(file.temporary)]).toEqual([false, true]);
    file.write(Buffer.from('llo'), 2);
    file.write(Buffer.from('he'), 0);
    file.commit();
    expect(readFileSync(path, 'utf8')).toBe('hello');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory)).toEqual(['file']);
  });

  it('leaves nothing where it is not committed', () => {
    const abandon = (): void => {
      using file = new NewFile(path);
      file.write(HELLO, 0);
      throw new Error('something else failed');
    };
    expect(abandon).toThrow('something else failed');
    expect(readdirSync(directory)).toEqual([]);
  });

  it('does not take the place of a file, from the beginning or at the end', () => {
    writeFileSync(path, 'old');
    expect(thrownBy(() => write())).toMatchObject({
      code: 'ERR_FILE',
      errno: 'EEXIST',
      message: `${path}: exists already; --force replaces it`,
    });
    rmSync(path);
    const late = (): void => {
      using file = new NewFile(path);
      writeFileSync(path, 'somebody was faster');
      file.commit();
    };
    expect(thrownBy(late)).toMatchObject({ code: 'ERR_FILE', errno: 'EEXIST' });
    expect(readFileSync(path, 'utf8')).toBe('somebody was faster');
    expect(readdirSync(directory)).toEqual(['file']);
  });

  it('replaces a file where it may, at the end', () => {
    writeFileSync(path, 'old');
    using file = new NewFile(path, true);
    file.write(HELLO, 0);
    expect(readFileSync(path, 'utf8')).toBe('old');
    file.commit();
    expect(readFileSync(path, 'utf8')).toBe('hello');
    expect(readdirSync(directory)).toEqual(['file']);
  });

  it('replaces what a link leads to, and not the link', () => {
    const real = join(directory, 'real');
    writeFileSync(real, 'old');
    symlinkSync('real', path);
    expect(thrownBy(() => write()).errno).toBe('EEXIST');
    write(true);
    expect([lstatSync(path).isSymbolicLink(), readFileSync(real, 'utf8')]).toEqual([true, 'hello']);
  });

  it.skipIf(process.getuid?.() !== 0)('follows no link of another user, at any remove (with root)', () => {
    const real = join(directory, 'real');
    writeFileSync(real, 'old');
    symlinkSync('real', path);
    lchownSync(path, 65534, 65534);
    const refusal = { code: 'ERR_FILE', errno: 'EACCES', message: expect.stringContaining('link of another user') };
    expect(thrownBy(() => write(true))).toMatchObject(refusal);
    const own = join(directory, 'own');
    symlinkSync('file', own);
    expect(thrownBy(() => write(true, own))).toMatchObject(refusal);
    expect([readFileSync(real, 'utf8'), readdirSync(directory).toSorted()]).toEqual(['old', ['file', 'own', 'real']]);
    lchownSync(path, 0, 0);
    write(true, own);
    expect(readFileSync(real, 'utf8')).toBe('hello');
  });

  it('says where links lead in a circle, or nowhere', () => {
    symlinkSync('file', path);
    expect(thrownBy(() => write(true))).toMatchObject({ code: 'ERR_FILE', errno: 'ELOOP' });
    rmSync(path);
    symlinkSync('nothing', path);
    expect(thrownBy(() => write(true))).toMatchObject({ code: 'ERR_FILE', errno: 'ENOENT' });
    expect(readdirSync(directory)).toEqual(['file']);
  });

  it.each([false, true])('never takes the place of what is no file (replace %s)', (replace) => {
    mkdirSync(path);
    expect(thrownBy(() => write(replace))).toMatchObject({ code: 'ERR_FILE', errno: 'EEXIST' });
    expect(thrownBy(() => write(replace, '/dev/null'))).toMatchObject({ code: 'ERR_FILE', errno: 'EEXIST' });
    expect(statSync('/dev/null').isCharacterDevice()).toBe(true);
  });

  it('takes names of any length', () => {
    const long = join(directory, 'x'.repeat(255));
    write(false, long);
    expect(readFileSync(long, 'utf8')).toBe('hello');
  });

  it('says why there is no file', () => {
    expect(thrownBy(() => write(false, join(directory, 'no/file')))).toMatchObject({
      code: 'ERR_FILE',
      errno: 'ENOENT',
      message: `${join(directory, 'no/file')}: no such file or directory`,
    });
    expect(thrownBy(() => write(false, join(directory, 'y'.repeat(256)))).errno).toBe('ENAMETOOLONG');
    expect(thrownBy(() => write(false, '/dev/full/x')).errno).toBe('ENOTDIR');
  });

  it.skipIf(process.getuid?.() === 0)('says where it may not be', () => {
    chmodSync(directory, 0o500);
    expect(thrownBy(() => write()).errno).toBe('EACCES');
    chmodSync(directory, 0o700);
  });
});

describe('OpenFile', () => {
  it('reads plain files only', () => {
    expect(thrownBy(() => new OpenFile('/dev/zero'))).toMatchObject({
      code: 'ERR_FILE_CORRUPT',
      message: '/dev/zero: is not a plain file',
    });
    expect(thrownBy(() => new OpenFile(tmpdir())).code).toBe('ERR_FILE_CORRUPT');
    expect(thrownBy(() => new OpenFile('/nonexistent'))).toMatchObject({
      code: 'ERR_FILE',
      errno: 'ENOENT',
      message: '/nonexistent: no such file or directory',
    });
  });
});
