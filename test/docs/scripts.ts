import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { blocks, documents, root, type Block } from './documents.ts';

/** A script of examples/, and where the documents show it. */
export interface Example {
  /** From the root of the checkout. */
  readonly path: string;
  /** What comes before the part that is shown: comments, and the line that makes it strict. */
  readonly head: string;
  readonly document: string;
  /** What the document shows, to be run as it is. */
  readonly shown: string;
  /** The block behind it, with what the script prints; `undefined` where the document does not show the script. */
  readonly printed: string | undefined;
}

const SHOWN = /^# (\S+\.md) shows what follows\.\n/m;

/** The scripts in examples/, less what they include, and less the programs (examples.test.ts). */
export const examples: readonly Example[] = readdirSync(join(root, 'examples'))
  .filter((name) => name.endsWith('.sh') && name !== 'strict.sh')
  .map((name) => {
    const path = `examples/${name}`;
    const text = readFileSync(join(root, path), 'utf8');
    const [head = '', document = '', shown = ''] = text.split(SHOWN);
    const all = blocks(documents.find((each) => each.path === document)?.text ?? '');
    return { path, head, document, shown, printed: all[all.findIndex(({ code }) => code === shown) + 1]?.code };
  });

const everyBlock = documents.flatMap(({ path, text }) => blocks(text).map((block) => ({ path, ...block })));

const hardware = everyBlock.filter(({ language, mark }) => language === 'bash' && mark === 'hardware');
const startsVmm = ({ code }: Block): boolean => code.includes('vfio-shim run ');

/** Commands that only a host with hardware carries out: they start a VMM. */
export const onHardware: readonly (Block & { readonly path: string })[] = hardware.filter(startsVmm);

/** Commands that need nothing of a host but what is in sysfs, and modprobe. */
export const onSysfs: readonly (Block & { readonly path: string })[] = hardware.filter((block) => !startsVmm(block));

/** Programs that a host is given to start its VMs with: blocks that begin with `#!`. */
export const wrappers: readonly (Block & { readonly path: string })[] = everyBlock.filter(({ code }) =>
  code.startsWith('#!'),
);
