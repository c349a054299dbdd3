"""The page itself: Gradio's components and server. The only importer of gradio.

Nothing that a visitor sends is written to disk, and no visitor can see another's image: an answer
is a function of what one request holds. The browser keeps the image and sends it again where
another method of explanation is chosen.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from artifactnet.demo import view
from artifactnet.demo.analysis import Analyst
from artifactnet.demo.card import card_of
from artifactnet.demo.guard import Guard
from artifactnet.demo.upload import UploadLimits, read_upload
from artifactnet.explanation.report.content import LABELS
from artifactnet.names import visible
from artifactnet.types import ArtifactNetError

if TYPE_CHECKING:
    import gradio

_HERE = Path(__file__).parent
_OPACITY = 60  # percent, at first
_WAITING = 16  # requests in the queue; each may hold an image
# answers that Gradio keeps in memory for visitors who come back: as few as it can
_SESSIONS = 1
_SET_OPACITY = "(value) => document.documentElement.style.setProperty('--heat', value / 100)"
_SHOW_BOXES = "(on) => document.documentElement.classList.toggle('an-no-boxes', !on)"
# on a phone the verdict is below the examples
_TO_VERDICT = """() => {
  const top = document.querySelector('#an-verdict').getBoundingClientRect().top;
  if (top < 0 || top > innerHeight / 2) {
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    scrollBy({top: top - 16, behavior: still ? 'auto' : 'smooth'});
  }
}"""
_LAST_PORT = 65535
_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # none is downloaded


def need_gradio() -> None:
    """Raise ArtifactNetError if gradio is not installed, without importing it."""
    if find_spec("gradio") is None:
        raise ArtifactNetError("the demo page needs Gradio: pip install 'artifactnet[demo]'")


def build_page(analyst: Analyst, model: str, limits: UploadLimits) -> gradio.Blocks:
    """The page of one model.

    Args:
        analyst: around the model.
        model: its name or path, for people.
        limits: of images.
    """
    import gradio as gr

    predictor = analyst.predictor
    name = visible(Path(model).name if os.sep in model else model)

    def answer(sent: object, method: str | None) -> tuple[str, str, str, Any, Any]:
        """Verdict, picture, details, and whether controls and regions are shown."""
        try:
            analysis = analyst.analyse(read_upload(sent, limits), method)
        except ArtifactNetError as error:
            hidden = gr.update(visible=False)
            return view.error_html(str(error)), "", "", hidden, hidden
        return (
            view.verdict_html(analysis, predictor.threshold, predictor.limits),
            view.picture_html(analysis),
            view.details_html(analysis),
            gr.update(visible=analysis.method is not None),
            gr.update(visible=bool(analysis.prediction.instances)),
        )

    def offer_methods(method: str | None) -> Any:
        """Those that the model supports: found out behind the first answer, not before it."""
        if method is not None:  # offered already, and perhaps chosen since
            return gr.skip()
        choices = [(LABELS[each], each) for each in analyst.methods]
        first = next(iter(analyst.methods), None)
        return gr.update(choices=choices, value=first, visible=len(choices) > 1)

    with gr.Blocks(title="ArtifactNet", analytics_enabled=False) as page:
        gr.HTML(
            "<h1>Was this image made by AI?</h1><p>ArtifactNet says how likely it is, and shows "
            "where the image looks wrong.</p>",
            elem_id="an-head",
            apply_default_css=False,
        )
        with gr.Row(elem_id="an-main"):
            with gr.Column(scale=2, min_width=300):
                intake = gr.HTML(
                    html_template=view.intake_html(limits),
                    js_on_load=(_HERE / "page.js").read_text(encoding="utf-8"),
                    elem_id="an-intake",
                    apply_default_css=False,
                )
            with gr.Column(scale=3, min_width=300, elem_id="an-answer"):
                verdict = gr.HTML(_WELCOME, elem_id="an-verdict", apply_default_css=False)
                picture = gr.HTML(elem_id="an-figure", apply_default_css=False)
                with gr.Column(visible=False) as controls:
                    opacity = gr.Slider(
                        0, 100, _OPACITY, step=5, label="Opacity of the heatmap (%)",
                        elem_id="an-opacity", buttons=[],
                    )  # fmt: skip
                    method = gr.Radio(
                        [(LABELS[each], each) for each in analyst.possible],
                        label="Heatmap by",
                        visible=False,
                        elem_id="an-method",
                    )
                boxes = gr.Checkbox(True, label="Show regions", visible=False, elem_id="an-boxes")
                details = gr.HTML(elem_id="an-text", apply_default_css=False)
        with gr.Accordion(f"About the model: {name}", open=False, elem_id="an-card"):
            gr.Markdown(card_of(model, predictor), latex_delimiters=[])
        opacity.input(None, opacity, None, js=_SET_OPACITY, api_visibility="private")
        boxes.input(None, boxes, None, js=_SHOW_BOXES, api_visibility="private")
        queued: dict[str, Any] = {
            "concurrency_limit": 1,  # a model answers one after the other
            "concurrency_id": "model",
            "trigger_mode": "always_last",
            "api_visibility": "private",
        }
        outputs = [verdict, picture, details, controls, boxes]
        progress: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": [verdict]}
        looked = intake.analyse(answer, [intake, method], outputs, **progress, **queued)
        method.input(answer, [intake, method], outputs, **progress, **queued)
        seen = looked.then(None, None, None, js=_TO_VERDICT, api_visibility="private")
        seen.then(offer_methods, method, method, show_progress="hidden", **queued)
    page.queue(max_size=_WAITING)
    return page


_WELCOME = '<p class="an-quiet">The verdict and the heatmap appear here.</p>'


@contextmanager
def open_page(
    analyst: Analyst,
    model: str,
    *,
    limits: UploadLimits = UploadLimits(),  # noqa: B008 (frozen)
    host: str = "127.0.0.1",
    port: int = 7860,
    root_path: str = "",
) -> Iterator[str]:
    """Serve the page until the block ends.

    Args:
        analyst: around the model.
        model: its name or path, for people.
        limits: of images.
        host: address to listen on; 0.0.0.0 is reachable from the network, without a password.
        port: to listen on; 0 takes any that is free.
        root_path: where a proxy serves the page, ``/detector``.

    Yields:
        The page's address on this machine.

    Raises:
        ArtifactNetError: gradio is not installed, or the port cannot be used.
    """
    need_gradio()
    port = _free_port(host, port)
    with TemporaryDirectory(prefix="artifactnet-demo-") as folder, _environment(folder):
        import gradio as gr
        from starlette.middleware import Middleware

        page = build_page(analyst, model, limits)
        theme = gr.themes.Base(font=_FONTS[0], font_mono=_FONTS[1])
        page.launch(
            server_name=f"[{host}]" if ":" in host else host, server_port=port, share=False,
            prevent_thread_lock=True, quiet=True, inbrowser=False, show_error=False,
            allowed_paths=[], root_path=root_path, max_file_size=limits.bytes,
            state_session_capacity=_SESSIONS, run_history=False, enable_monitoring=False,
            footer_links=[], ssr_mode=False, pwa=False, mcp_server=False,
            app_kwargs={"middleware": [Middleware(Guard, max_bytes=limits.request_bytes)]},
            theme=theme, css_paths=_HERE / "page.css",
        )  # fmt: skip
        try:
            yield str(page.local_url)
        finally:
            page.close(verbose=False)
            analyst.wait()


def _free_port(host: str, port: int) -> int:
    """The port, or any free one for 0.

    Raises:
        ArtifactNetError: it cannot be used on this host.
    """
    try:
        if port > _LAST_PORT:  # which getaddrinfo would take, counted from 0 again
            raise OverflowError(f"the last one is {_LAST_PORT}")
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]  # fmt: skip
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, OverflowError, UnicodeError) as error:  # the last of no name, as "a..b"
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ArtifactNetError(
            f"cannot serve on port {port} of {host} ({reason}); name another with --port, or "
            "--port 0 for any that is free"
        ) from error


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """What Gradio reads when it is imported and when it starts.

    Its temporary files go into ``folder``, it sends no telemetry, and its call to itself goes past
    any proxy.
    """
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    changed = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": folder,
        "no_proxy": ",".join(filter(None, (direct, "127.0.0.1", "localhost"))),
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
