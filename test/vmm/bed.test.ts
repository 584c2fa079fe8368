import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Bed } from '../../src/vmm/bed.ts';
import { Child } from '../../src/vmm/child.ts';

class OneChild extends Bed {
  readonly child = this.adopt(new Child(['sleep', '300']));
}

it('ends its programs and removes its directory when it is closed', async () => {
  const bed = new OneChild(mkdtempSync(join(tmpdir(), 'vfio-shim-')));
  writeFileSync(bed.path('file'), '');
  const before = process.listenerCount('SIGTERM');
  await bed[Symbol.asyncDispose]();
  expect(bed.child.exit).toEqual({ code: null, signal: 'SIGKILL' });
  expect(existsSync(bed.directory)).toBe(false);
  expect(process.listenerCount('SIGTERM')).toBe(before - 1);
});
