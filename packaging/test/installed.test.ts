import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cachePath } from '../../scripts/lib/cache.mjs';
import { run } from '../../scripts/lib/process.mjs';
import { blocks, documents } from '../../test/docs/documents.ts';
import { lacksForRun } from '../../test/support/host.ts';
import { TESTED, testedNode } from '../npm.ts';
import { SHELLS } from './shells.ts';
import { CleanRoot, lacksRoots, type Entered } from './clean-root.ts';
import { makePackages, packageIn, root, succeeded } from './made.ts';

/*
 * Each package is made, installed in a Debian 12 that has nothing else of it, used, and removed.
 */

const lacking = lacksRoots() ?? lacksForRun();

mkdirSync(cachePath(''), { recursive: true });
const work = mkdtempSync(join(cachePath(''), 'packages-')); // roots are copied within a file system
const made = join(work, 'made');
let names: readonly string[] = [];
const nodes = new Map<string, string>();
let qemu = '';

const packageOf = (pattern: RegExp): string => packageIn(made, pattern);

/** How README.md installs the package that takes Debian's Node. */
function documented(): string {
  const text = documents.find(({ path }) => path === 'README.md')?.text ?? '';
  const [only, ...more] = blocks(text).filter(({ mark }) => mark === 'install');
  if (only === undefined || more.length > 0) throw new Error('README.md: not exactly one way to install');
  return only.code;
}

/** A demo's result, whose parts both have migrated a device between VMMs and compared its memory. */
function expectDemo(entered: Entered, vmm: string | RegExp): void {
  const { ok, parts } = JSON.parse(succeeded(entered)) as { ok: boolean; parts: { vmm: string }[] };
  expect(ok).toBe(true);
  expect(parts.map((part) => part.vmm)).toEqual([expect.stringMatching(vmm), 'a small v2 VMM']);
}

describe.skipIf(lacking !== undefined)(`packages${lacking === undefined ? '' : ` (${lacking})`}`, () => {
  beforeAll(async () => {
    await makePackages(made);
    names = readdirSync(made).toSorted();
    for (const pinned of TESTED) nodes.set(pinned.version, await testedNode(pinned));
    qemu = (await run(process.execPath, [join(root, 'scripts/qemu.mjs'), 'bookworm'])).trim();
  });
  afterAll(() => rmSync(work, { recursive: true, force: true }));

  it('are three', () => {
    expect(names).toEqual([
      expect.stringMatching(/^vfio-shim-\d.*-linux-(x64|arm64)\.tar\.xz$/),
      expect.stringMatching(/^vfio-shim-standalone_.*\.deb$/),
      expect.stringMatching(/^vfio-shim_.*\.deb$/),
    ]);
  });

  it('are the same, byte for byte, if they are made again elsewhere', { timeout: 900_000 }, async () => {
    const again = join(work, 'again');
    await makePackages(again, { TZ: 'Asia/Tokyo', LC_ALL: 'C.UTF-8', TMPDIR: work });
    const sums = (directory: string): string[] =>
      names.map((name) =>
        createHash('sha256')
          .update(readFileSync(join(directory, name)))
          .digest('hex'),
      );
    expect(sums(again)).toEqual(sums(made));
  });

  describe.each([
    ['with the Node of Debian', 'vfio-shim', /^vfio-shim_/, []],
    ['with a Node of its own, and no other', 'vfio-shim-standalone', /^vfio-shim-standalone_/, ['/usr/bin/node']],
  ])('a package of Debian %s', (_, name, pattern, hidden) => {
    let clean: CleanRoot;
    let before: string[] = [];

    beforeAll(async () => {
      const shown = [made, cachePath('npm'), cachePath('qemu-bookworm')];
      clean = await CleanRoot.make(join(work, name), shown, hidden);
      before = clean.contents();
      const install = name === 'vfio-shim' ? documented() : `dpkg --install ${packageOf(pattern)}`;
      succeeded(clean.run(['bash', '-ec', `cd ${made}\n${install}`]));
    });

    it('is whole', () => {
      expect(succeeded(clean.run(['dpkg', '--verify', name]))).toBe('');
      expect(succeeded(clean.run(['dpkg-query', '--show', '--showformat=${Status}', name]))).toBe(
        'install ok installed',
      );
    });

    it('migrates a device from one VMM to another', () => {
      expectDemo(clean.run(['vfio-shim', 'demo', '--json', '--no-qemu']), 'a small v1 VMM');
    });

    it('migrates a device from one QEMU 7.2 to another', () => {
      expectDemo(clean.run(['vfio-shim', 'demo', '--json'], { VFIO_SHIM_QEMU: qemu }), /^QEMU 7\.2\./);
    });

    it('saves a state and restores it', () => {
      const script = `cd /tmp && vfio-shim save sim:qat,size=4M,seed=7 a.state --json && vfio-shim restore sim:qat,size=4M a.state --json`;
      const lines = succeeded(clean.run(['sh', '-c', `${script} && rm a.state`]))
        .trim()
        .split('\n');
      const [saved, restored] = lines.map((line) => JSON.parse(line) as { sha256: string; bytes: number });
      expect(saved?.bytes).toBeGreaterThan(4 * 2 ** 20);
      expect(restored).toMatchObject({ sha256: saved?.sha256, bytes: saved?.bytes });
    });

    it.each(Object.keys(SHELLS))('is completed by %s', (shell) => {
      const offered = (line: string): string[] => SHELLS[shell]?.(clean, line) ?? [];
      // the word that bash completes begins behind the colon
      const word = shell === 'bash' ? 'qat' : 'sim:qat';
      expect(offered('vfio-shim s')).toEqual(['save', 'serve', 'stream']);
      expect(offered('vfio-shim run --pre')).toEqual(['--present']);
      expect(offered('vfio-shim run --present draft')).toEqual(['draft-2018', 'draft-2019']);
      expect(offered('vfio-shim run --device qat --device his')).toEqual(['hisi', 'hisi-v1']);
      expect(offered('vfio-shim run --device qat -- truncat')).toEqual(['truncate']);
      expect(offered('vfio-shim probe sim:q')).toEqual([word]);
      expect(offered('vfio-shim fsm --flags 3 stop runn')).toEqual(['running', 'running-p2p']);
    });

    it('has pages in the manual, in which groff finds no mistake', () => {
      const pages = readdirSync(join(clean.path, 'usr/share/man/man1')).filter((page) => page.startsWith('vfio-shim'));
      expect(pages).toHaveLength(17);
      for (const page of pages) {
        const read = clean.run(['man', '--warnings', '-l', `/usr/share/man/man1/${page}`], { MANWIDTH: '80' });
        expect({ page, stderr: read.stderr }).toEqual({ page, stderr: '' });
      }
      expect(succeeded(clean.run(['man', 'vfio-shim-run']))).toContain('VFIO_SHIM_SYSFS');
    });

    it('leaves nothing behind', () => {
      succeeded(clean.run(['dpkg', '--purge', name]));
      expect(clean.contents()).toEqual(before);
      expect(clean.run(['dpkg-query', '--show', name]).status).toBe(1);
    });
  });

  describe('the archive', () => {
    let clean: CleanRoot;
    const top = (): string => `/opt/${basename(packageOf(/\.tar\.xz$/), '.tar.xz')}`;

    beforeAll(async () => {
      clean = await CleanRoot.make(join(work, 'archive'), [made], ['/usr/bin/node']);
      const unpacked = ['mkdir', '-p', '/opt', '&&', 'tar', '-xJf', packageOf(/\.tar\.xz$/), '-C', '/opt'].join(' ');
      succeeded(clean.run(['sh', '-c', unpacked]));
    });

    it('migrates a device, by its name and through a link', () => {
      expectDemo(clean.run([`${top()}/bin/vfio-shim`, 'demo', '--json', '--no-qemu']), 'a small v1 VMM');
      const linked = `ln -s ${top()}/bin/vfio-shim /usr/local/bin/ && cd /usr/local/bin && ./vfio-shim --version`;
      expect(succeeded(clean.run(['sh', '-c', `mkdir -p /usr/local/bin && ${linked}`]))).toMatch(/^\d+\.\d+\.\d+\n$/);
      expect(succeeded(clean.run(['sh', '-c', `cd ${top()}/bin && sh vfio-shim fsm stop running`]))).toBe(
        'STOP -> RUNNING_P2P -> RUNNING\n',
      );
    });

    it('has everything in one directory', () => {
      const list = clean.contents().filter((line) => /^\/opt\/./.test(line) && !line.startsWith('/opt/ '));
      expect(list.filter((line) => !line.startsWith(`${top()}/`))).toEqual([]);
      expect(list.some((line) => line.startsWith(`${top()}/share/doc/vfio-shim/copyright `))).toBe(true);
    });
  });

  describe('the programs', () => {
    let clean: CleanRoot;

    beforeAll(async () => {
      clean = await CleanRoot.make(join(work, 'programs'), [made, cachePath('npm')]);
      succeeded(clean.run(['dpkg', '--install', packageOf(/^vfio-shim_/)]));
    });

    it.each(TESTED.map(({ version }) => version))('migrate a device under Node %s', (version) => {
      const node = nodes.get(version) ?? '';
      expect(succeeded(clean.run([node, '--version']))).toBe(`v${version}\n`);
      expectDemo(clean.run([node, '/usr/lib/vfio-shim/main.js', 'demo', '--json', '--no-qemu']), 'a small v1 VMM');
    });
  });
});
