import { observe } from '../device/observe.ts';
import { kindOf } from '../sim/drivers.ts';
import { onFile } from '../state-file/errors.ts';
import { SocketFile } from '../sys/socket-file.ts';
import { EmulatedService } from '../vfio-user/emulated/emulated-service.ts';
import { MessageRecorder } from '../vfio-user/watch/message-recorder.ts';
import { RecordedService } from '../vfio-user/watch/recorded-service.ts';
import { serve, type ServeOptions, type Service } from '../vfio-user/server/serve.ts';
import { logger } from './logs.ts';
import { say } from './output.ts';
import { recordingHeader } from './recording.ts';
import { planServed, type ServeOrder } from './serve.ts';
import { ServiceRecording } from './service-recording.ts';

/** Serves until this process is to end. */
export function carryOutServe({
  device,
  listen,
  timeout,
  stop,
  recording,
}: ServeOrder & { readonly stop: number }): void {
  const plan = planServed(device);
  const { protocol } = kindOf(plan.spec);
  const warn = (why: string): void => say(`vfio-shim: ${why}\n`);
  const options = { timeout, stop: { fd: stop, heeded: true } };
  const begun = ServiceRecording.begin(recording, () =>
    recordingHeader({
      command: 'serve',
      present: null,
      devices: [{ name: plan.name, device, protocol }],
      options: {},
    }),
  );
  if (begun === undefined) {
    listenAndServe(listen, new EmulatedService(plan, warn), options);
    return;
  }
  const recorder = new MessageRecorder(plan.name, begun);
  const emulated = new EmulatedService(plan, warn, (sim) => observe(sim, (event) => recorder.driver(event)));
  recorded(begun, () => listenAndServe(listen, new RecordedService(emulated, recorder, begun), options));
}

/** Ends a recording with what it is of. */
export function recorded(recording: ServiceRecording, act: () => void): void {
  try {
    act();
  } finally {
    recording.end();
  }
}

/** Has a service listen at a path: once it does, that is said. */
export function listenAndServe(path: string, what: Service, options: Omit<ServeOptions, 'log'>): void {
  const file = onFile(path, () => new SocketFile(path));
  try {
    say(`vfio-shim: listening at ${path}\n`);
    serve(file, what, { ...options, log: logger('vfio-user') });
  } finally {
    file.close();
  }
}
