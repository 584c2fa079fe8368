import { ShimError } from '../error.ts';

/** Throws `ERR_ARGUMENT` if FILE of `save` or `restore` is not the path of a file. */
export function checkFileName(command: 'save' | 'restore', file: string): void {
  if (file === '') throw new ShimError('ERR_ARGUMENT', `${command}: the name of the file is empty`);
  if (file !== '-') return;
  const why =
    command === 'save'
      ? 'a state is not written to stdout, as its header comes last'
      : 'a state is not read from stdin, as all of it is checked before any of it is used';
  throw new ShimError('ERR_ARGUMENT', `${command}: file "-": ${why}; give a path (./- is a file of that name)`);
}
