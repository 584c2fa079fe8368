import { carryOut, type Commands } from './program.ts';

const commands: Commands = new Map([
  ['run', () => import('./run.ts')], // to be listed
  ['libvirt-wrapper', () => import('./libvirt-wrapper.ts')],
  ['probe', () => import('./probe.ts')],
  ['save', () => import('./save.ts')],
  ['restore', () => import('./restore.ts')],
  ['stream', () => import('./stream.ts')],
  ['fsm', () => import('./fsm.ts')],
  ['demo', () => import('./demo.ts')],
]);
void carryOut(commands);
