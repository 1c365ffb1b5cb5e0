// Angular's HttpClient with our interceptor, as a test sees it. Nothing is compiled ahead: the compiler is in the page.
import "@angular/compiler";
import { HttpClient, HttpContext, provideHttpClient, withFetch, withInterceptors, withXhr } from "@angular/common/http";
import { EnvironmentInjector, provideZonelessChangeDetection, runInInjectionContext } from "@angular/core";
import { createApplication } from "@angular/platform-browser";
import { createSession } from "unbroken-session";
import { sessionInterceptor, sessionStatus, WITHOUT_SESSION } from "unbroken-session/angular";

window.startAngular = async (options, how = "fetch") => {
  const session = createSession(options);
  const backend = how === "xhr" ? withXhr() : withFetch();
  const http = provideHttpClient(backend, withInterceptors([sessionInterceptor(session)]));
  const app = await createApplication({ providers: [provideZonelessChangeDetection(), http] });
  const status = runInInjectionContext(app.injector.get(EnvironmentInjector), () => sessionStatus(session));
  const client = app.injector.get(HttpClient);
  // Everything that a request emits, up to its end.
  const watch = (method, url, more = {}) =>
    new Promise((done) => {
      const events = [];
      const about = ({ type, status, loaded, body }) => ({ type, status, loaded, body });
      const error = ({ name, code, status, error: body }) => done({ events, error: { name, code, status, body } });
      const next = (event) => events.push(event?.type === undefined ? event : about(event));
      window.leave = client.request(method, url, more).subscribe({ next, error, complete: () => done({ events }) });
    });
  const without = new HttpContext().set(WITHOUT_SESSION, true);
  Object.assign(window, { session, app, signalled: status, watch, without });
};
