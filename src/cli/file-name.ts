import { ShimError } from '../error.ts';

/** Why a file is not one of the standard streams. */
const NO_STREAM = {
  save: 'a state is not written to stdout, as its header comes last',
  restore: 'a state is not read from stdin, as all of it is checked before any of it is used',
  stream: 'a migration file is not read from stdin, as what describes it comes last',
  timeline: 'a recording is not read from stdin, as some pictures take it twice',
  '--svg': 'a file gets its name when it is complete, and stdout has the story',
  '--output': 'a file gets its name when it is complete, and stdout has it already',
  '--replace': 'a state is not read from stdin, as all of it is checked before any of it is used',
} as const;

/** Throws `ERR_ARGUMENT` if a file of a command, or of an option, is not the path of one. */
export function checkFileName(of: keyof typeof NO_STREAM, file: string): void {
  if (file === '') throw new ShimError('ERR_ARGUMENT', `${of}: the name of the file is empty`);
  if (file !== '-') return;
  throw new ShimError('ERR_ARGUMENT', `${of}: file "-": ${NO_STREAM[of]}; give a path (./- is a file of that name)`);
}
