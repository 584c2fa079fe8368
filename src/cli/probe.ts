import { type Command } from 'commander';
import { ShimError } from '../error.ts';
import { createSim } from '../sim/create.ts';
import { barSize } from '../sim/pci.ts';
import { parseSpec, specHelp } from '../sim/spec.ts';
import { V1RegisterAccess } from '../v1/registers.ts';
import { v1StateName } from '../v1/states.ts';
import { v2StateName } from '../v2/states.ts';

export function add(program: Command): void {
  program
    .command('probe')
    .description('what a device is and which migration protocol it speaks')
    .argument('<device>', 'sim:SPEC, a simulated device')
    .option('--json', 'print JSON')
    .addHelpText('after', `\n${specHelp()}`)
    .action((device: string, options: { json?: true }) => {
      const facts = probe(device);
      if (options.json === true) process.stdout.write(`${JSON.stringify(facts)}\n`);
      else
        for (const [name, value] of Object.entries(facts))
          process.stdout.write(`${name.padEnd(16)} ${String(value)}\n`);
    });
}

function probe(device: string): Record<string, string | number> {
  const [kind, ...rest] = device.split(':');
  if (kind !== 'sim') {
    throw new ShimError('ERR_ARGUMENT', `device ${JSON.stringify(device)}: this version probes sim:SPEC only`);
  }
  const spec = parseSpec(rest.join(':'));
  const sim = createSim({ ...spec, size: Math.min(spec.size, 4096), seed: 0 });
  const common = { device, driver: spec.driver, protocol: sim.protocol, guestMemory: spec.size, bar0: barSize(spec) };
  if (sim.protocol === 'v1') {
    const { dataSection } = sim.device;
    const state = v1StateName(new V1RegisterAccess(sim.device).deviceState());
    return { ...common, deviceState: state, dataSectionOffset: dataSection.offset, dataSectionSize: dataSection.size };
  }
  const { migrationFlags } = sim.device;
  const names = ['STOP_COPY', 'P2P', 'PRE_COPY'].filter((_, bit) => (migrationFlags & (1 << bit)) !== 0);
  return { ...common, deviceState: v2StateName(sim.device.getState()), migrationFlags, flags: names.join(' | ') };
}
