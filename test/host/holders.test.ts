import { describe, expect, it } from 'vitest';
import { findHolders } from '../../src/host/holders.ts';
import { hostWith, processWith, type Entry } from '../support/host-tree.ts';

const INIT = processWith(1, 'init', '/dev/null');

/** A process whose descriptors are no directory to read: another error than that of one that has ended. */
function unreadable(pid: number, flags: number): Record<string, Entry> {
  return { [`/proc/${pid}/fd`]: '', [`/proc/${pid}/stat`]: `${pid} (a ) b) S 1 1 1 0 -1 ${flags} 0 0\n` };
}

describe('findHolders', () => {
  it('finds who has a node open, each once', () => {
    const host = hostWith({
      ...INIT,
      ...processWith(20, 'qemu', '/dev/null', '/dev/vfio/26', '/dev/vfio/26', 'anon_inode:[vfio-device]'),
      ...processWith(9, 'other', '/dev/vfio/devices/vfio0', '/dev/vfio/vfio', '/dev/vfio/26 (deleted)'),
      ...processWith(10, 'far', '/run/jail/dev/vfio/noiommu-3', '/tmp/vfio/26/log', '/dev/vfio/26x'),
    });
    const { byNode, unseen } = findHolders(host);
    const [qemu, other] = [
      { pid: 20, command: 'qemu' },
      { pid: 9, command: 'other' },
    ];
    expect(byNode).toEqual(
      new Map([
        ['/dev/vfio/26', [other, qemu]],
        ['/dev/vfio/devices/vfio0', [other]],
        ['/dev/vfio/noiommu-3', [{ pid: 10, command: 'far' }]],
      ]),
    );
    expect(unseen).toBeUndefined();
  });

  it('says that there are processes that it may not look at, the kernel’s own apart', () => {
    expect(findHolders(hostWith({ ...INIT, ...unreadable(5, 0x20_8040) })).unseen).toBeUndefined();
    expect(findHolders(hostWith({ ...INIT, ...unreadable(5, 0x40_0100) })).unseen).toBe(
      '1 process is not for this user to look at',
    );
    const two = { ...unreadable(5, 0), ...unreadable(6, 0) };
    expect(findHolders(hostWith({ ...INIT, ...two })).unseen).toBe('2 processes are not for this user to look at');
  });

  it('says that /proc hides others', () => {
    expect(findHolders(hostWith(processWith(20, 'sh'))).unseen).toBe('/proc does not show all processes');
  });

  it('does not count a process that ended meanwhile', () => {
    expect(findHolders(hostWith({ ...INIT, '/proc/30/comm': 'gone\n' })).unseen).toBeUndefined();
  });
});
