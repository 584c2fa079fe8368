import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { requireCli } from '../../tools/vmm/cli.ts';
import { root } from './documents.ts';
import { patient } from '../support/patience.ts';

it('the pictures of the documents are what the package draws', { timeout: patient(120_000) }, () => {
  requireCli();
  const args = [join(root, 'scripts/pictures.mjs'), '--check'];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
});
