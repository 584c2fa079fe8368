import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { blocks, documents, root, type Block } from './documents.ts';
import { examples, onHardware, onSysfs, wrappers } from './scripts.ts';

/*
 * What is shown as a command can be copied and run. test/real/examples.test.ts runs the scripts, and what else takes a QEMU.
 */

const every = documents.flatMap(({ path, text }) => blocks(text).map((block) => ({ path, ...block })));

/** Says what makes a block true; `undefined` where nothing does. */
function held({ language, mark, code }: Block): string | undefined {
  if (language === 'console' && mark === '') return 'run and compared by commands.test.ts';
  if (language === 'ts' && (mark === 'fragment' || code.includes("from 'vfio-shim")))
    return 'compiled by examples.test.ts';
  if (language === 'bash' && mark === 'hardware') return 'as far as one gets without';
  if (language === 'bash' && mark === '') return examples.find(({ shown }) => shown === code)?.path;
  if (language === 'yaml') return 'its commands run by test/real/ci.test.ts';
  if (language === 'bash' && mark === 'install') return 'run in a clean Debian by packaging/test';
  if (language === 'sh' && code.startsWith('#!')) return 'a program, compared by libvirt-wrapper.test.ts';
  if (['text', 'json', 'xml', 'mermaid'].includes(language)) return 'no command';
  if (language === '') return 'SPECs, parsed by devices.test.ts';
  return undefined;
}

/** The mistakes that a shell finds in a script without running it. */
function complaints(shell: string, code: string): string {
  const { status, stderr } = spawnSync(shell, ['-n'], { input: code, encoding: 'utf8' });
  return status === 0 ? stderr : `${shell} -n: status ${status}: ${stderr}`;
}

describe('blocks of the documents', () => {
  it('are of a kind that some test holds to the truth', () => {
    expect(every.length).toBeGreaterThan(30);
    expect(every.filter((block) => held(block) === undefined)).toEqual([]);
  });

  it('wait for what happens, and never for a time', () => {
    const commands = every.filter(({ language }) => ['bash', 'sh', 'console'].includes(language));
    const sleeping = commands.flatMap(({ code }) => code.split('\n').filter((line) => line.includes('sleep')));
    expect(sleeping.filter((line) => !/^ *until .*; do .*sleep 0\.\d; done$/.test(line))).toEqual([]);
    expect(commands.filter(({ code }) => /[\s=]\/tmp\//.test(code))).toEqual([]);
  });

  it('give vfio-shim run options that it has', () => {
    const help = spawnSync(process.execPath, [join(root, 'dist/cli/main.js'), 'run', '--help'], { encoding: 'utf8' });
    const known = new Set(Array.from(help.stdout.matchAll(/^ +(?:-\w, )?(--[\w-]+)/gm), ([, option = '']) => option));
    const used = every
      .filter(({ language }) => ['bash', 'sh', 'console'].includes(language))
      .flatMap(({ code }) =>
        Array.from(code.matchAll(/vfio-shim run ((?:[^\n]|\\\n)*?) -- /g), ([, args = '']) => args),
      )
      .flatMap((args) => Array.from(args.matchAll(/--[\w-]+/g), ([option]) => option));
    expect(used.length).toBeGreaterThan(10);
    expect(used.filter((option) => !known.has(option))).toEqual([]);
  });
});

describe.each(examples)('$path', ({ path, head, document, shown, printed }) => {
  it('is shown whole in its document, which says how to run it, and what it prints', () => {
    const text = documents.find((each) => each.path === document)?.text ?? '';
    expect(blocks(text).map(({ code }) => code)).toContain(shown);
    expect(text).toContain(`\`bash ${path}\``);
    expect(printed).toMatch(/\S\n$/);
  });

  it('is strict, and owes nothing else to what is not shown', () => {
    expect(head).toMatch(/^#!\/bin\/bash\n# .*\n\. "\$\{0%\/\*\}\/strict\.sh"\n$/);
    expect(shown).toMatch(/^dir=\$\(mktemp -d\)\n/);
    expect(shown).toMatch(/^rm -r "\$dir"\n$/m);
    expect(complaints('bash', readFileSync(join(root, path), 'utf8'))).toBe('');
  });
});

describe('what only a host with hardware or libvirt runs', () => {
  it('is there', () => {
    expect(onHardware.length).toBeGreaterThan(1);
    expect(wrappers.length).toBeGreaterThan(0);
  });

  it.each([...onHardware, ...onSysfs])('$path: commands have no mistake that bash sees', ({ code }) => {
    expect(complaints('bash', code)).toBe('');
  });

  it.each(wrappers)('$path: a program has no mistake that its shell sees', ({ code }) => {
    const shell = /^#!(\S+)\n/.exec(code)?.[1] ?? '';
    expect(complaints(shell, code)).toBe('');
  });
});
