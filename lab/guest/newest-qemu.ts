import { execFileSync } from 'node:child_process';
import { qemuBinary } from '../../tools/vmm/binaries.ts';
import { note } from './check.ts';

/** Says which it is, and has it in memory from here on: it is read by a share, which takes longer than who asks it again would wait. */
export function noteNewestQemu(): void {
  const [line = ''] = execFileSync(qemuBinary('newest'), ['--version'], { encoding: 'utf8' }).split('\n');
  note(line);
}
