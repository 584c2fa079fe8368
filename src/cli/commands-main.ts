import { commands } from './commands.ts';
import { carryOut } from './program.ts';

void carryOut(commands);
