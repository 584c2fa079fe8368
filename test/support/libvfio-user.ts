import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Child } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { listens } from './unix-sockets.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/libvfio-user.mjs', import.meta.url));
const PATIENCE = 30_000;

/** The commits of libvfio-user that are built, and the migration protocol of each. */
export const COMMITS = { '1569a37': 'v1', '190f85b': 'v2', efd091b: 'v2' } as const;
export type Commit = keyof typeof COMMITS;

/** Bytes of BAR1 of a commit's sample server (samples/server.c: bar1_size; scripts/libvfio-user.mjs: mendSample). Its state is these, and BAR0. */
export const bar1Size = (commit: Commit): number => (commit === 'efd091b' ? 0x4000 : 0x3000);

const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, '--cached'], { encoding: 'utf8' });
const home = stdout.trim();

/** Why libvfio-user's programs cannot be run here. No package has them, and not every machine reaches GitHub. */
export const missingPeers: string | undefined = status === 0 ? undefined : stderr.trim();

/** Starts the sample server of a commit. It ends with its first client. */
export async function startPeer(bed: TestBed, commit: Commit, path: string): Promise<Child> {
  const child = bed.spawn([join(home, commit, 'server'), '-v', path]);
  await waitFor(child, path, () => listens(path)); // one that is not ours has the file before
  return child;
}

/** Starts `proxy` in front of a socket. */
export async function startProxy(bed: TestBed, from: string, to: string, args: readonly string[]): Promise<Child> {
  const child = bed.spawn([process.execPath, CLI, 'proxy', '--listen', from, '--connect', to, ...args]);
  await waitFor(child, from, () => existsSync(from)); // it gets that name when it listens
  return child;
}

async function waitFor(child: Child, path: string, isListening: () => boolean): Promise<void> {
  const isThere = (): true | undefined => {
    if (child.fate !== undefined) throw new Error(`${child.command.join(' ')}: ${child.fate}`);
    return isListening() ? true : undefined;
  };
  await poll(isThere, PATIENCE, `a socket at ${path}`);
}

/**
 * Starts the sample client of a commit. It migrates the device behind `path` to the one behind `path` with `_migrated` added, and compares
 * BAR1. It would start a server there itself, by becoming one while its child goes on (samples/client.c: migrate_to): what it
 * becomes here waits for that child, and ends as that does.
 */
export function startClient(bed: TestBed, commit: Commit, path: string): Child {
  const directory = `${path}.client`;
  mkdirSync(directory);
  const server = join(directory, 'server');
  writeFileSync(server, '#!/usr/bin/perl\nwait; exit($? & 127 ? 128 + ($? & 127) : $? >> 8);\n');
  chmodSync(server, 0o755);
  const client = join(directory, 'client');
  symlinkSync(join(home, commit, 'client'), client);
  return bed.spawn([client, path]);
}
