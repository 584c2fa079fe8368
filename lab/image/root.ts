import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unpack } from '../../scripts/lib/apt.mjs';
import { ARCHITECTURES, commandLine, wrapperText, type Architecture } from '../../scripts/lib/own-loader.mjs';
import type { Arch } from '../../packaging/architectures.ts';
import { Failure, run } from '../../scripts/lib/process.mjs';

const START = fileURLToPath(new URL('start.sh', import.meta.url));
/** Where the guest has QEMU 10.0. */
const QEMU10 = '/opt/qemu-10';
/** Where it has the newest QEMU, if the host shares it. */
const NEWEST_QEMU = '/opt/newest-qemu';

export interface Programs {
  /** The guest's processor, by Node's name of it. */
  readonly arch: Arch;
  /** QEMU 7.2, busybox and what they depend on. */
  readonly debs: readonly string[];
  /** Puts the packages of QEMU 10.0 into a directory. */
  readonly putQemu10: (directory: string) => void | Promise<void>;
  readonly node: string;
  /** A busybox that runs on this machine, if the guest's does not: of the same version, it has the same commands. */
  readonly busybox?: string;
}

/** The versions of the programs. */
export interface Versions {
  readonly node: string;
  readonly qemu72: string;
  readonly qemu10: string;
}

/** Makes the root file system as a directory: Debian's programs, busybox for everything else, node. */
export async function makeRoot(tree: string, programs: Programs): Promise<void> {
  const arch = architectureOf(programs.arch);
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    mkdirSync(join(tree, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(tree, name));
  }
  await unpack(programs.debs, tree);
  const mountPoints = ['dev', 'proc', 'sys', 'tmp', 'run', 'root', 'project', 'results', 'lab', 'opt', NEWEST_QEMU];
  for (const name of mountPoints) mkdirSync(join(tree, name), { recursive: true });
  await linkApplets(tree, programs.busybox ?? join(tree, 'bin/busybox'));

  mkdirSync(join(tree, QEMU10, 'root'), { recursive: true });
  await programs.putQemu10(join(tree, QEMU10, 'root'));
  writeProgram(join(tree, QEMU10, 'qemu-system-x86_64'), wrapperText(join(QEMU10, 'root'), arch));
  writeProgram(join(tree, 'lab/newest-qemu-system-x86_64'), wrapperText(join(NEWEST_QEMU, 'root'), arch));
  cpSync(realpathSync(programs.node), join(tree, 'usr/bin/node'));
  writeProgram(join(tree, 'lab/start'), readFileSync(START, 'utf8'));
  writeFileSync(
    join(tree, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nlab:x:1000:1000:an ordinary user:/tmp:/bin/sh\n',
  );
  writeFileSync(join(tree, 'etc/group'), 'root:x:0:\nlab:x:1000:\n');
  for (const root of [tree, join(tree, QEMU10, 'root')]) {
    for (const name of ['doc', 'man', 'locale', 'info', 'lintian']) {
      rmSync(join(root, 'usr/share', name), { recursive: true, force: true });
    }
  }
}

function architectureOf(arch: Arch): Architecture {
  const found = ARCHITECTURES[arch];
  if (found === undefined) throw new Error(`no architecture ${arch}`);
  return found;
}

/** An image of the directory, by mke2fs, which needs neither root nor loop devices. */
export async function makeImage(tree: string, image: string, megabytes: number): Promise<void> {
  const features = ['-O', '^has_journal', '-E', 'root_owner=0:0', '-m', '0'];
  await run('mke2fs', ['-q', '-t', 'ext4', '-d', tree, ...features, image, `${megabytes}M`]);
}

function writeProgram(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}

/** A link to busybox for each of its commands that no package brings. */
async function linkApplets(tree: string, busybox: string): Promise<void> {
  const applets = (await run(busybox, ['--list'])).trim().split('\n');
  for (const applet of applets) {
    const taken = ['usr/bin', 'usr/sbin'].some((directory) => existsSync(join(tree, directory, applet)));
    if (!taken) symlinkSync('busybox', join(tree, 'usr/bin', applet));
  }
}

/** Programs of this machine's processor must run with the guest's libraries, which the host's kernel can try as well. */
export async function checkPrograms(tree: string): Promise<Versions> {
  const arch = architectureOf('x64');
  const [loader = '', ...options] = commandLine(tree, arch);
  const library = options.slice(0, options.indexOf('--library-path') + 2);
  const node = run(loader, [...library, join(tree, 'usr/bin/node'), '--version']).catch((error: unknown) => {
    throw new Failure(`this node does not run with the libraries of Debian 12: ${String(error)}`);
  });
  return {
    node: (await node).trim(),
    qemu72: await qemuVersion(commandLine(tree, arch), '7.2'),
    qemu10: await qemuVersion(commandLine(join(tree, QEMU10, 'root'), arch), '10.0'),
  };
}

async function qemuVersion([file = '', ...args]: readonly string[], wanted: string): Promise<string> {
  const text = await run(file, [...args, '--version']);
  const version = /^QEMU emulator version (\S+)/.exec(text)?.[1];
  if (version?.startsWith(`${wanted}.`) !== true) throw new Failure(`Debian has QEMU ${version}, not ${wanted}`);
  return version;
}
