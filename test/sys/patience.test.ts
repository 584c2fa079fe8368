import { describe, expect, test } from 'vitest';
import { withPatience } from '../../src/sys/patience.ts';
import { addressOf, failedWith, syscall, trySyscall } from '../../src/sys/libc.ts';
import { OwnedFd } from '../../src/sys/fd.ts';

function pipe(): { readonly reader: OwnedFd; readonly writer: OwnedFd } {
  const fds = new Int32Array(2);
  syscall('a pipe', 'pipe2', addressOf(fds), 0);
  return { reader: new OwnedFd(fds[0] ?? -1), writer: new OwnedFd(fds[1] ?? -1) };
}

describe('withPatience', () => {
  const byte = new Uint8Array(1);
  const read = (fd: number): number => trySyscall('read', fd, addressOf(byte), 1);

  test('a read of an empty pipe, which would block for ever, ends with EINTR, each time', () => {
    const { reader, writer } = pipe();
    using _ = writer;
    using from = reader;
    for (let n = 0; n < 5; n += 1)
      expect(
        failedWith(
          withPatience(() => read(from.number)),
          'EINTR',
        ),
      ).toBe(true);
    syscall('one byte', 'write', writer.number, addressOf(byte), 1);
    expect(withPatience(() => read(from.number))).toBe(1);
  });

  test('the timer is off afterwards, also if the call throws: other calls block undisturbed', () => {
    expect(() =>
      withPatience(() => {
        throw new Error('no such call');
      }),
    ).toThrow('no such call');
    const begun = performance.now();
    // ppoll of nothing: returns 0 when its time is over, and EINTR if a signal comes before
    const time = new BigInt64Array([0n, 30_000_000n]);
    expect(trySyscall('ppoll', 0, 0, addressOf(time), 0, 8)).toBe(0);
    expect(performance.now() - begun).toBeGreaterThanOrEqual(29);
  });
});
