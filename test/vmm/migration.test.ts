import { describe, expect, it } from 'vitest';
import { cancelMigration, type MigrationInfo } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';

/** A VM whose monitor answers query-migrate with one of these after the other, and the last one from then on. */
function vmThatSays(...answers: readonly MigrationInfo[]): Vm {
  let next = 0;
  const execute = (command: string): Promise<unknown> => {
    if (command !== 'query-migrate') return Promise.resolve({});
    next += 1;
    return Promise.resolve(answers[Math.min(next, answers.length) - 1]);
  };
  return { name: 'vm', qmp: { execute }, child: { lastWords: '' } } as unknown as Vm;
}

const CUT_OFF = { status: 'failed', 'error-desc': 'Unable to write to socket: Broken pipe' };
const SHUT_DOWN = { status: 'failed', 'error-desc': 'Channel error: Input/output error' };
const FAILED = { status: 'failed', 'error-desc': 'No space left on device' };

describe('cancelMigration', () => {
  it.each([
    { end: { status: 'cancelled' }, title: 'QEMU says so' },
    { end: CUT_OFF, title: 'QEMU wrote to the socket that it had shut down' },
    { end: SHUT_DOWN, title: 'QEMU read from the socket that it had shut down, before it wrote' },
  ])('ends if $title', async ({ end }) => {
    const vm = vmThatSays({ status: 'active' }, { status: 'cancelling' }, end);
    expect(await cancelMigration(vm)).toEqual(end);
  });

  it.each([
    { end: FAILED, text: 'migration of VM vm failed, not cancelled: No space left on device' },
    { end: { status: 'completed' }, text: 'migration of VM vm completed, not cancelled: QEMU gives no reason' },
  ])('fails if the migration $end.status for another reason', async ({ end, text }) => {
    await expect(cancelMigration(vmThatSays(end))).rejects.toThrow(text);
  });
});
